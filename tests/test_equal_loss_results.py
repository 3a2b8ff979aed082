"""equal_loss.md, and what h100.md quotes of it, against the study's records."""

from __future__ import annotations

import csv
from collections import defaultdict
from math import exp, inf, log
from statistics import mean
from types import SimpleNamespace
from typing import cast

import pytest

from pipeline.analysis.rows.points import Row
from pipeline.analysis.statistics.training import end_slope
from pipeline.base.files import read_json
from pipeline.results.curve import read_curve
from pipeline.results.search import read_tuning
from tests.conftest import ROOT
from tests.result_pages import scores

FOLDER = ROOT / "docs/results/equal_loss"
PAGE, H100 = (
    " ".join((ROOT / path).read_text(encoding="utf-8").split())
    for path in ("docs/results/equal_loss.md", "docs/results/h100.md")
)
LINES = (FOLDER.parent / "equal_loss.md").read_text(encoding="utf-8").splitlines()
SCORED = {path.stem: read_json(path) for path in sorted((FOLDER / "results/evaluate").iterdir())}
SPEEDS = {path.stem[:-2]: read_json(path)["settings"] for path in (FOLDER / "results/benchmark").iterdir()}
SETTINGS = ("decode_heavy", "prefill_heavy")
GROUPED, WITH_ALL = "vanilla, grouped-query", "vanilla"
WORDS = {
    "block, grouped-query": "grouped",
    "block": "with all heads",
    GROUPED: "grouped",
    WITH_ALL: "with all heads",
}
LOWEST = {"block, grouped-query": "block-85m_gqa-2-carried_all", "block": "block-85m-2-carried_all"}

with (FOLDER / "speedup.csv").open(encoding="utf-8", newline="") as file:
    RATIOS = {
        (row["family"], row["against"], row["at_the_loss_of"], row["setting"]): {
            key: float(row[key]) for key in ("loss", "ratio", "low", "high", "roofline_ratio")
        }
        for row in csv.DictReader(file)
    }


def rows(columns: int) -> list[list[str]]:
    """The rows of the page's tables of so many columns, without the heads."""
    cells = [[cell.strip() for cell in line[2:-2].split(" | ")] for line in LINES if line.startswith("| ")]
    return [row for row in cells if len(row) == columns and row[0] not in {"model", "block transformers"}]


def seeds(model: str) -> list[str]:
    return [cell for cell in SCORED if cell[:-2] == model]


def flops(model: str, folder: str = "equal_loss") -> float:
    trained: float = read_json(FOLDER.parent / f"{folder}/results/pretrain/{model}-0.json")["training_flops"]
    return trained


def loss(model: str) -> float:
    return mean(SCORED[cell]["loss"] for cell in seeds(model))


def score(cell: str, task: str, metric: str) -> float:
    (value,) = (each["value"] for each in SCORED[cell]["tasks"] if (each["task"], each["metric"]) == (task, metric))
    return float(value)


def between(first: tuple[float, float], second: tuple[float, float], at: float) -> float:
    """Speed at a loss on the line through two points, straight in the logarithm of the speed."""
    (low, fast), (high, slow) = first, second
    share = (at - low) / (high - low)
    return exp((1 - share) * log(fast) + share * log(slow))


def test_the_study_is_told_whole() -> None:
    timed, untimed = ({row[0].strip("`") for row in rows(columns)} for columns in (9, 7))
    assert timed == set(SPEEDS)
    assert timed | untimed == {cell[:-2] for cell in SCORED}
    assert f"{len(SCORED)} of its cells" in PAGE


@pytest.mark.parametrize("row", rows(9), ids=[row[0] for row in rows(9)])
def test_a_model_has_its_losses_speeds_cache_and_training_flops(row: list[str]) -> None:
    model = row[0].strip("`")
    told = [", ".join(f"{SCORED[cell]['loss']:.3f}" for cell in seeds(model)), f"{loss(model):.3f}"]
    for setting in SETTINGS:
        speed = SPEEDS[model][setting]
        told += [f"{speed['tokens_per_second']:,.0f}", f"{speed['roofline_fraction']:.0%}"]
    told.append(f"{SPEEDS[model]['decode_heavy']['kv_bytes_per_sample'] / 1e6:.1f}")
    told.append(f"{flops(model):.2e}")
    assert row[1:] == told


@pytest.mark.parametrize("row", rows(6), ids=[row[0] for row in rows(6)])
def test_a_model_has_its_scores(row: list[str]) -> None:
    model = row[0].strip("`")
    told = [
        f"{mean(score(cell, task, metric) for cell in seeds(model)):.{digits}f}"
        for task, metric, digits in (
            ("lambada_openai", "gold_bits_per_byte", 2),
            ("lambada_openai", "acc", 3),
            ("sciq", "acc", 3),
            ("piqa", "gold_bits_per_byte", 2),
        )
    ]
    assert row[1:] == [f"{loss(model):.3f}", *told]


@pytest.mark.parametrize("row", rows(7), ids=[row[0] for row in rows(7)])
def test_a_model_beside_those_with_llamas_layers_has_its_loss_flops_and_scores(row: list[str]) -> None:
    model = row[0].strip("`")
    told = scores(SCORED[cell] for cell in seeds(model))
    assert row[1:] == [told[0], f"{flops(model):.2e}", *told[1:]]


def test_llamas_layers_against_gpt_neoxs() -> None:
    assert (len(seeds("vanilla-19m_gqa")), len(seeds("vanilla-19m_llama"))) == (2, 1)
    assert f"{loss('vanilla-19m_gqa'):.3f} (two seeds) against {loss('vanilla-19m_llama'):.3f} (one seed)" in PAGE
    with_all = [
        read_json(FOLDER.parent / f"layers/tuned_rates/evaluate-vanilla-19m_normed-{seed}.json")["loss"]
        for seed in "01"
    ]
    recipe = read_json(FOLDER.parent / "recipe/vanilla-19m_16e-3/record.json")
    assert (recipe["matrix_learning_rate"], recipe["learning_rate"]) == (0.004, 0.016)
    assert f"[{mean(with_all):.3f} against {recipe['document_losses']['test']:.3f}](layers.md)" in PAGE
    lower = read_json(FOLDER.parent / "layers/half_rates/evaluate-vanilla-19m_normed-0.json")["loss"]
    assert f"With all heads 0.002 and 0.008 gave {lower:.3f}" in PAGE


def test_what_block_transformers_lack_against_a_vanilla_transformer_of_their_size() -> None:
    large = "vanilla-85m_llama"
    before = read_json(FOLDER.parent / "recipe/vanilla-85m/record.json")["document_losses"]["test"]
    assert f"**Vanilla 85M has {loss(large):.3f} nats**" in PAGE
    assert f"it had [{before:.3f}](recipe.md)" in PAGE
    blocks = (("windows", "block-85m_gqa_window-2-memory64_two_all"), ("memory", "block-302m_gqa-4-memory64_all"))
    (least, more), (of_302m, more_302m) = (
        (read_json(FOLDER.parent / f"{folder}/results/evaluate/{model}-0.json")["loss"], flops(model, folder))
        for folder, model in blocks
    )
    assert f"[{least:.3f}](windows.md), {least - loss(large):.3f} more, for {more / flops(large):.2f} times" in PAGE
    told = f"has {of_302m:.3f}, {of_302m - loss(large):.3f} more, for {more_302m / flops(large):.1f} times."
    assert told in PAGE
    small = mean(
        read_json(path)["loss"]
        for path in (FOLDER.parent / "windows/results/evaluate").glob("block-19m_gqa-2-memory64_all-?.json")
    )
    neox, llama = loss("vanilla-19m_gqa"), loss("vanilla-19m_llama")
    assert f"it is {small - neox:.3f}, from [{small:.3f}](windows.md) to {neox:.3f}" in PAGE
    assert f"or {small - llama:.3f} to Llama's {llama:.3f}" in PAGE


def test_the_llama_that_was_timed_has_more_key_value_heads() -> None:
    timed = {record["cell"]["name"]: record for record in read_json(FOLDER.parent / "changes/speed_85m.json")}
    speed = timed["vanilla-85m_llama-0"]["settings"]["decode_heavy"]
    layers, head_width, in_bf16, key_and_value = 12, 64, 2, 2
    a_head = layers * head_width * in_bf16 * key_and_value * (speed["prompt"] + speed["new_tokens"])
    assert speed["kv_bytes_per_sample"] == 4 * a_head
    assert "has four key/value heads, not three" in PAGE


def test_the_rates_are_those_of_the_best_trials() -> None:
    tuning = read_tuning(FOLDER / "tuning/results.json")
    assert tuning is not None
    expected = []
    for model in tuning.models:
        assert len(model.trials) == model.wanted == 8
        best = min(model.complete, key=lambda trial: trial.loss or inf)
        (usual,) = (
            trial for trial in model.complete if trial.point == {"learning_rate": 0.008, "matrix_learning_rate": 0.004}
        )
        largest = max(trial.point["learning_rate"] for trial in model.trials)
        rates = f"{best.point['matrix_learning_rate']:g}, {best.point['learning_rate']:g}"
        edge = " (the largest tried)" if best.point["learning_rate"] == largest else ""
        expected.append([f"`{model.model}`", rates + edge, f"{best.loss:.3f}", f"{usual.loss - best.loss:+.3f}"])
    assert rows(4) == expected


def test_what_tuning_brings_vanilla_5m_at_all_tokens() -> None:
    before = [read_json(path)["loss"] for path in sorted((FOLDER / "untuned/evaluate").iterdir())]
    assert "{:.3f}, {:.3f} and {:.3f}, which made".format(*before) in PAGE
    assert f"0.054 nats in trials of 50 million, {mean(before) - loss('vanilla-5m_gqa'):.3f} at 100 million" in PAGE


def test_losses_still_fall_by_what_the_page_says() -> None:
    """Nats per doubling of tokens, by block length; 1 is vanilla."""
    slopes: dict[str, list[float]] = defaultdict(list)
    for path in (FOLDER / "curves").iterdir():
        steps = read_json(FOLDER / f"results/pretrain/{path.stem}.json")["steps"]
        row = SimpleNamespace(curve=read_curve(path), pretrain=SimpleNamespace(steps=steps), recipe=None)
        family, length = path.stem.split("-")[0], path.stem.split("-")[2]
        slopes["1" if family == "vanilla" else length].append((end_slope(cast(Row, row)) or (0.0,))[0])
    low, high = ({length: f"{pick(found):.2f}" for length, found in slopes.items()} for pick in (min, max))
    assert f"by {low['1']} to {high['1']} nats per doubling of tokens for vanilla" in PAGE
    assert f"by {low['2']} to {high['2']} with blocks of 2, {low['4']} to {high['4']} with blocks of 4" in PAGE
    assert f"and {low['8']} with blocks of 8" in PAGE


def in_words(family: str, against: str, at: str, setting: str) -> str:
    found = RATIOS[family, against, at, setting]
    return f"{found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def test_the_page_has_the_ratios_with_their_intervals() -> None:
    expected = [
        [
            WORDS[family],
            WORDS[against],
            f"{RATIOS[family, against, at, 'decode_heavy']['loss']:.3f}",
            *(in_words(family, against, at, setting) for setting in SETTINGS),
        ]
        for family, large in LOWEST.items()
        for against, small in ((GROUPED, "vanilla-5m_gqa"), (WITH_ALL, "vanilla-5m"))
        for at in (small, large)
    ]
    assert rows(5) == expected


def test_a_ratio_is_that_between_the_neighbours_on_the_fronts() -> None:
    """Decode-heavy, both grouped, at each other's loss; straight in the logarithm of the speed."""
    family, large, small = "block, grouped-query", "block-85m_gqa-2-carried_all", "block-19m_gqa-2-carried_all"
    points = {
        model: (loss(model), SPEEDS[model]["decode_heavy"]["tokens_per_second"])
        for model in (large, small, "vanilla-5m_gqa", "vanilla-19m_gqa")
    }

    at_the_5m = between(points[small], points[large], points["vanilla-5m_gqa"][0]) / points["vanilla-5m_gqa"][1]
    at_the_85m = points[large][1] / between(points["vanilla-5m_gqa"], points["vanilla-19m_gqa"], points[large][0])
    found = [RATIOS[family, GROUPED, at, "decode_heavy"]["ratio"] for at in ("vanilla-5m_gqa", large)]
    assert [at_the_5m, at_the_85m] == pytest.approx(found)
    slope = (log(points[small][1]) - log(points[large][1])) / (points[small][0] - points[large][0])
    for at, goal in ((found[0], 5), (RATIOS[family, WITH_ALL, "vanilla-5m", "decode_heavy"]["ratio"], 10)):
        assert f"{log(goal / at) / slope:.2f} nats" in PAGE
    assert f"a factor of e per {1 / slope:.2f} nats" in PAGE


def test_the_headline_is_the_records() -> None:
    family, large = "block, grouped-query", LOWEST["block, grouped-query"]
    top = PAGE.partition("![")[0]
    for against, small in ((GROUPED, "vanilla-5m_gqa"), (WITH_ALL, "vanilla-5m")):
        for at in (small, large):
            assert f"{RATIOS[family, against, at, 'decode_heavy']['ratio']:.2f} " in top
    for at in ("vanilla-5m_gqa", large):
        found = RATIOS[family, GROUPED, at, "decode_heavy"]
        assert f"{found['low']:.2f} to {found['high']:.2f})" in top


def test_h100_tells_what_is_left() -> None:
    family, large = "block, grouped-query", LOWEST["block, grouped-query"]
    for against, small in ((GROUPED, "vanilla-5m_gqa"), (WITH_ALL, "vanilla-5m")):
        low, high = (RATIOS[family, against, at, "decode_heavy"]["ratio"] for at in (large, small))
        assert f"{low:.2f} to {high:.2f} against" in H100


def test_trainings_again_have_nearly_the_losses_of_before() -> None:
    apart = [
        read_json(path)["loss"] - SCORED[path.stem]["loss"]
        for folder in ("measures", "changes")
        for path in (FOLDER.parent / folder / "results/evaluate").iterdir()
        if path.stem in SCORED
    ]
    assert len(apart) == 12
    assert max(map(abs, apart)) < 0.003
