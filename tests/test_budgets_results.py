"""docs/results/budgets.md against its records, and against those of equal_loss.md, whose models it has."""

from __future__ import annotations

import re
from statistics import mean
from typing import Any

import pytest

from pipeline.base.files import read_json
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


def record(model: str, tokens: str = "200 million", stage: str = "evaluate") -> dict[str, Any]:
    found: dict[str, Any] = read_json(FOLDER / f"{stage}/{model}-0{BUDGETS[tokens]}.json")
    return found


def losses(model: str) -> list[float]:
    return [record(model, tokens)["loss"] for tokens in BUDGETS]


def falls(model: str) -> list[float]:
    fifty, hundred, two_hundred = losses(model)
    return [fifty - hundred, hundred - two_hundred]


def rows(columns: int) -> list[list[str]]:
    cells = [[cell.strip() for cell in line[2:-2].split(" | ")] for line in LINES if line.startswith("| `")]
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


@pytest.mark.parametrize("row", rows(6), ids=[row[0] for row in rows(6)])
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
