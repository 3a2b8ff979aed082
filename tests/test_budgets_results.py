"""docs/results/budgets.md against its records, and against those of equal_loss.md, whose models it has."""

from __future__ import annotations

import re
from math import sqrt
from statistics import mean
from typing import Any

import pytest

from pipeline.base.files import read_json
from pipeline.data.corpus import HeldOut
from pipeline.results.curve import read_rows
from pipeline.study import load_study
from pipeline.study.schema import Corpus
from tests.conftest import ROOT
from tests.test_equal_loss_results import between

FOLDER = ROOT / "docs/results/budgets"
EQUAL = FOLDER.parent / "equal_loss"
PAGE, EQUAL_PAGE = (" ".join(path.with_suffix(".md").read_text(encoding="utf-8").split()) for path in (FOLDER, EQUAL))
LINES = FOLDER.with_suffix(".md").read_text(encoding="utf-8").splitlines()
SMALL, LARGE, BLOCK, BLOCK_85M = (
    "vanilla-5m_gqa",
    "vanilla-19m_gqa",
    "block-19m_gqa-2-carried_all",
    "block-85m_gqa-2-carried_all",
)
BUDGETS = {"50 million": "-50000000", "100 million": "-100000000", "200 million": ""}
PRINTED = re.findall(
    r"^(\S+)-0 (\d+\+\d+): ([\d,]+) tokens/s at batch \d+, (\d+%) of the limit .*, ([\d.]+) MB per sample",
    (FOLDER / "speed_8192.txt").read_text(encoding="utf-8"),
    re.MULTILINE,
)
SPEEDS = {(model, setting): (speed, share, cache) for model, setting, speed, share, cache in PRINTED}
PROMPT, ANSWER = "8064+128", "128+8064"
PASSES = "## Passes over the same text"


def record(model: str, tokens: str = "200 million", stage: str = "evaluate") -> dict[str, Any]:
    found: dict[str, Any] = read_json(FOLDER / f"{stage}/{model}-0{BUDGETS[tokens]}.json")
    return found


def losses(model: str) -> list[float]:
    return [record(model, tokens)["loss"] for tokens in BUDGETS]


def falls(model: str) -> list[float]:
    fifty, hundred, two_hundred = losses(model)
    return [fifty - hundred, hundred - two_hundred]


def evaluated(folder: str) -> dict[str, list[dict[str, Any]]]:
    """The evaluations of vanilla 19M and block 19M in a folder of docs/results, by seed."""
    found = FOLDER.parent / folder
    return {
        model: [read_json(path) for path in sorted(found.glob(f"evaluate/{model}-[012].json"))]
        for model in (LARGE, BLOCK)
    }


FOUR, TWO, ONE_AND_A_HALF = (
    evaluated(folder) for folder in ("budgets/passes", "budgets/passes_twice", "equal_loss/results")
)
TARGETS: list[int] = FOUR[LARGE][0]["targets_by_document"]


def nats(evaluations: list[dict[str, Any]]) -> list[float]:
    """Nats of each common document, means over the seeds."""
    return [
        mean(seeds) for seeds in zip(*(each["nats_by_document"][: len(TARGETS)] for each in evaluations), strict=True)
    ]


def on_common(evaluations: list[dict[str, Any]]) -> float:
    """Nats per token of the common documents."""
    return sum(nats(evaluations)) / sum(TARGETS)


def costs(model: str, seeds: int = 3, passes: dict[str, list[dict[str, Any]]] = FOUR) -> list[float]:
    """Nats by which so many passes are worse than 1.5, of each common document."""
    return [more - fewer for more, fewer in zip(nats(passes[model]), nats(ONE_AND_A_HALF[model][:seeds]), strict=True)]


def per_token(by_document: list[float]) -> str:
    """Nats per token with the standard error of documents drawn anew."""
    value = sum(by_document) / sum(TARGETS)
    squares = sum((each - value * targets) ** 2 for each, targets in zip(by_document, TARGETS, strict=True))
    return f"{value:.3f} ± {sqrt(squares * len(TARGETS) / (len(TARGETS) - 1)) / sum(TARGETS):.3f}"


def rows(columns: int, heading: str = "") -> list[list[str]]:
    """The rows of tables with so many columns, from that heading on."""
    lines = LINES[LINES.index(heading) :] if heading else LINES
    cells = [[cell.strip() for cell in line[2:-2].split(" | ")] for line in lines if line.startswith("| `")]
    return [row for row in cells if len(row) == columns]


def score(model: str, tokens: str, task: str, metric: str) -> float:
    scores = record(model, tokens)["tasks"]
    (value,) = (each["value"] for each in scores if (each["task"], each["metric"]) == (task, metric))
    return float(value)


def test_a_row_is_its_records() -> None:
    expected = [
        [
            f"`{model}`",
            tokens,
            f"{record(model, tokens)['loss']:.3f}",
            f"{score(model, tokens, 'lambada_openai', 'gold_bits_per_byte'):.2f}",
            f"{score(model, tokens, 'lambada_openai', 'acc'):.3f}",
            f"{score(model, tokens, 'sciq', 'acc'):.3f}",
            f"{score(model, tokens, 'piqa', 'gold_bits_per_byte'):.2f}",
        ]
        for model in (SMALL, LARGE, BLOCK)
        for tokens in BUDGETS
    ]
    assert rows(7) == expected


def test_what_is_said_of_the_losses() -> None:
    behind = {
        model: [own - theirs for own, theirs in zip(losses(BLOCK), losses(model), strict=True)]
        for model in (SMALL, LARGE)
    }
    small, large = ([f"{gap:.3f}" for gap in behind[model]] for model in (SMALL, LARGE))
    assert f"{small[0]}, {small[1]} and {small[2]} nats per token after 50, 100 and 200 million" in PAGE
    assert f"by {large[0]}, {large[1]} and {large[2]}" in PAGE
    assert f"from {small[0]} nats at 50 million to {small[2]} at 200 million" in EQUAL_PAGE
    told = [f"{first:.3f} and {second:.3f}" for first, second in map(falls, (BLOCK, SMALL, LARGE))]
    assert (
        f"by {told[0]} nats per doubling, where vanilla 5M's falls by {told[1]}, and vanilla 19M's by {told[2]}" in PAGE
    )


def test_what_the_losses_would_go_on_to() -> None:
    ratios = {
        model: second / first for model, (first, second) in ((model, falls(model)) for model in (SMALL, LARGE, BLOCK))
    }
    assert "({:.2f}, {:.2f} and {:.2f})".format(*ratios.values()) in PAGE
    gaps, left = {}, {model: losses(model)[-1] for model in (SMALL, BLOCK)}
    for doubling in (1, 2, 3):
        for model in left:
            left[model] -= falls(model)[-1] * ratios[model] ** doubling
        gaps[200 * 2**doubling] = left[BLOCK] - left[SMALL]
    assert f"{gaps[400]:.3f} nats behind vanilla 5M at 400 million tokens and level at 1.6 billion" in PAGE
    assert f"{gaps[1600]:.3f}" == "0.000"


def test_the_ratio_of_speeds_at_the_block_transformers_loss() -> None:
    speeds = {
        model: read_json(EQUAL / f"results/benchmark/{model}-0.json")["settings"]["decode_heavy"]["tokens_per_second"]
        for model in (SMALL, LARGE, BLOCK)
    }
    found = [
        speeds[BLOCK] / between((small, speeds[SMALL]), (large, speeds[LARGE]), block)
        for small, large, block in zip(losses(SMALL), losses(LARGE), losses(BLOCK), strict=True)
    ]
    assert "{:.2f}, {:.2f} and {:.2f} times at the block transformer's loss".format(*found) in PAGE
    assert f"{speeds[BLOCK] / speeds[SMALL]:.1f}" == "2.0"
    slower = [speeds[model] / float(SPEEDS[model, ANSWER][0].replace(",", "")) for model in (SMALL, BLOCK)]
    assert f"costs vanilla 5M {slower[0]:.1f} times its tokens per second, and block 19M {slower[1]:.1f} times" in PAGE


def test_words_of_the_passage() -> None:
    task, metric = "lambada_openai", "gold_bits_per_byte"
    behind = [score(BLOCK, tokens, task, metric) - score(SMALL, tokens, task, metric) for tokens in BUDGETS]
    assert "is {:.2f}, {:.2f} and {:.2f} behind".format(*behind) in PAGE
    piqa = [score(model, tokens, "piqa", metric) for tokens in BUDGETS for model in (BLOCK, SMALL)]
    assert all(block < vanilla for block, vanilla in zip(piqa[::2], piqa[1::2], strict=True))


def test_speeds_at_8192_tokens_are_what_the_benchmark_printed() -> None:
    expected = [
        [f"`{model}`", SPEEDS[model, PROMPT][0], *SPEEDS[model, ANSWER]] for model in (SMALL, LARGE, BLOCK, BLOCK_85M)
    ]
    assert rows(5) == expected


def test_the_ratios_at_8192_tokens() -> None:
    scored = {
        model: mean(read_json(path)["loss"] for path in (EQUAL / "results/evaluate").glob(f"{model}-[012].json"))
        for model in (SMALL, LARGE, BLOCK, BLOCK_85M)
    }
    ratios = {}
    for setting in (ANSWER, PROMPT):
        point = {model: (scored[model], float(SPEEDS[model, setting][0].replace(",", ""))) for model in scored}
        at_small = between(point[BLOCK], point[BLOCK_85M], scored[SMALL]) / point[SMALL][1]
        at_block = point[BLOCK_85M][1] / between(point[SMALL], point[LARGE], scored[BLOCK_85M])
        ratios[setting] = (f"{at_small:.2f}", f"{at_block:.2f}")
    small, block = ratios[ANSWER]
    assert f"{small} times as fast at {scored[SMALL]:.3f} nats and {block} times at {scored[BLOCK_85M]:.3f}" in PAGE
    assert "({} and {} with long prompts)".format(*ratios[PROMPT]) in PAGE
    assert f"{small} and {block} times as fast" in EQUAL_PAGE


PAST = rows(6)[: -len(rows(6, PASSES))]


@pytest.mark.parametrize("row", PAST, ids=[row[0] for row in PAST])
def test_losses_past_the_trained_length(row: list[str]) -> None:
    long = record(row[0].strip("`"))["loss_by_context"][1]
    assert long["length"] == 8192
    quarters = [mean(long["losses"][first : first + 4]) for first in range(0, 16, 4)]
    assert row[1:] == [f"{loss:.2f}" for loss in (*quarters, mean(long["losses"]))]


def test_every_training_took_its_tokens() -> None:
    for model in (SMALL, LARGE, BLOCK):
        for tokens in BUDGETS:
            trained = record(model, tokens, "pretrain")
            assert trained["tokens"] == pytest.approx(int(tokens.split()[0]) * 1e6, rel=1e-3)
            assert (trained["diverged"], trained["environment"]["dirty"]) == (False, False)


def held_out(corpus: Corpus) -> HeldOut:
    return HeldOut(corpus.validation_fraction, corpus.test_fraction, corpus.seed)


def test_the_common_documents_are_the_first_of_the_longer_test_set() -> None:
    everywhere = [each for found in (FOUR, TWO, ONE_AND_A_HALF) for model in found for each in found[model]]
    for each in everywhere:
        assert each["targets_by_document"][: len(TARGETS)] == TARGETS
    assert len({each["tokenizer_hash"] for each in everywhere}) == 1
    names = ("passes", "passes_twice", "equal_loss")
    shorter, *longer = (load_study(FOLDER.parents[2] / f"studies/{name}_h100.yaml").corpus for name in names)
    places = range(shorter.max_documents or 0)
    splits = [held_out(shorter).split(place) for place in places]
    for corpus in longer:
        assert splits == [held_out(corpus).split(place) for place in places]
    assert splits.count("test") == len(TARGETS)
    assert f"{len(TARGETS)} test documents ({sum(TARGETS):,} targets)" in PAGE


def test_passes_have_their_losses() -> None:
    expected = [
        [
            f"`{model}`",
            ", ".join(f"{on_common([seed]):.3f}" for seed in ONE_AND_A_HALF[model]),
            f"{on_common(TWO[model]):.3f}",
            per_token(costs(model, passes=TWO)),
            f"{on_common(FOUR[model]):.3f}",
            per_token(costs(model)),
        ]
        for model in (LARGE, BLOCK)
    ]
    assert rows(6, PASSES) == expected
    two, four = (
        [per_token(costs(model, passes=passes)).split()[0] for model in (LARGE, BLOCK)] for passes in (TWO, FOUR)
    )
    assert "cost vanilla 19M {} nats and the block transformer {}, two".format(*four) in PAGE
    assert "two passes {} and {}.".format(*two) in PAGE
    whole = mean(each["loss"] for each in ONE_AND_A_HALF[LARGE])
    assert f"has {on_common(ONE_AND_A_HALF[LARGE]):.3f} on these 188 documents and {whole:.3f} on all 503" in PAGE


def test_what_repetition_costs_the_block_transformer_more() -> None:
    more, of_seed_0 = (
        per_token([own - theirs for own, theirs in zip(costs(BLOCK, seeds), costs(LARGE, seeds), strict=True)])
        for seeds in (3, 1)
    )
    assert f"by {more} nats**, and by {of_seed_0} where only seed 0 is compared" in PAGE
    worse = [mean(cost > 0 for cost in costs(model)) for model in (LARGE, BLOCK)]
    told = f"{worse[0]:.0%} of the documents are worse for the vanilla transformer, {worse[1]:.0%} for the block"
    assert told.replace("%", " %") in PAGE
    seeds = [on_common([seed]) for seed in ONE_AND_A_HALF[BLOCK]]
    assert f"three are {max(seeds) - min(seeds):.3f} apart" in PAGE
    behind = [on_common(found[BLOCK]) - on_common(found[LARGE]) for found in (ONE_AND_A_HALF, TWO, FOUR)]
    assert "by {:.3f} after 1.5 passes, by {:.3f} after 2 and by {:.3f} after 4".format(*behind) in PAGE


def test_losses_while_training_on_repeated_text() -> None:
    curves = {
        (folder, model): read_rows(FOLDER.parent / folder / f"curves/{model}-0.csv")
        for folder in ("budgets/passes", "budgets/passes_twice", "equal_loss")
        for model in (LARGE, BLOCK)
    }
    last = {key: mean(float(row["train_loss"]) for row in curve[-31:]) for key, curve in curves.items()}
    lower, little = (
        [last["equal_loss", model] - last[f"budgets/{passes}", model] for model in (LARGE, BLOCK)]
        for passes in ("passes", "passes_twice")
    )
    assert "300 steps of four passes they are {:.2f} (vanilla) and {:.2f} nats (block) below".format(*lower) in PAGE
    assert "those of two {:.2f} and {:.2f}".format(*little) in PAGE
    fall = []
    for model in (LARGE, BLOCK):
        held = {int(row["step"]): row["validation_loss"] for row in curves["budgets/passes", model]}
        fall.append(float(held[2250]) - float(held[3052]))
    assert "from step 2,250 on it falls by {:.3f} and {:.3f}".format(*fall) in PAGE


@pytest.mark.parametrize("passes", ["passes", "passes_twice"])
def test_more_passes_took_as_many_tokens(passes: str) -> None:
    for model in (LARGE, BLOCK):
        trained, beside = (
            read_json(FOLDER.parent / folder / f"pretrain/{model}-0.json")
            for folder in (f"budgets/{passes}", "equal_loss/results")
        )
        assert (trained["tokens"], trained["steps"]) == (beside["tokens"], beside["steps"])
        assert (trained["diverged"], trained["environment"]["dirty"]) == (False, False)
