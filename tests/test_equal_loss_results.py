"""equal_loss.md, measures.md, the carried keys of changes.md, and what README.md quotes, against their records."""

from __future__ import annotations

import csv
import math
import re
from statistics import mean
from typing import Any

import pytest
from scipy.stats import spearmanr

from pipeline.base.files import read_json
from tests.conftest import ROOT

FOLDER = ROOT / "docs/results/equal_loss"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE, MEASURES, CHANGES = (
    (FOLDER.parent / f"{name}.md").read_text(encoding="utf-8") for name in ("equal_loss", "measures", "changes")
)
SPEEDS = {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / "speed.json")}
SCORED = {path.stem: read_json(path) for path in sorted((FOLDER / "results/evaluate").iterdir())}
SETTINGS = ("decode_heavy", "prefill_heavy")
TASKS = {
    "LAMBADA": "lambada_openai",
    "HellaSwag": "hellaswag",
    "SciQ": "sciq",
    "PIQA": "piqa",
    "WinoGrande": "winogrande",
    "OpenBookQA": "openbookqa",
    "ARC easy": "arc_easy",
    "ARC challenge": "arc_challenge",
}
SIGNS = {"gold_bits_per_byte": 1, "gold_margin": -1, "acc": -1}
"""A task's scores, and the sign by which a better one is lower."""


def rows(page: str, pattern: str) -> list[list[str]]:
    return [[entry.strip() for entry in row] for row in re.findall(rf"^\| {pattern} \|$", page, re.MULTILINE)]


TOLD = rows(PAGE, r"`(.*)` \| (.*) \| (.*) \| (.*) \| (.*) \| (.*) \| (.*)")
CARRIED = rows(CHANGES, r"`(.*-carried.*)` \| (.*) \| (.*) \| (.*) \| (.*) \| (.*) \| (.*) \| (.*)")


def speed(model: str, setting: str) -> float:
    return float(SPEEDS[model][setting]["tokens_per_second"])


def loss(cell: str) -> float:
    return float(SCORED[cell]["loss"])


def between(first: tuple[float, float], second: tuple[float, float], at: float) -> float:
    """The speed at a loss on the line between two models' (loss, speed), straight in the speed's logarithm."""
    share = (at - first[0]) / (second[0] - first[0])
    return math.exp((1 - share) * math.log(first[1]) + share * math.log(second[1]))


@pytest.mark.parametrize("row", TOLD, ids=[row[0] for row in TOLD])
def test_a_model_has_its_loss_speeds_and_training_flops(row: list[str]) -> None:
    model, *told = row
    numbers = [f"{loss(f'{model}-0'):.3f}"]
    for setting in SETTINGS:
        numbers += [f"{speed(model, setting):,.0f}", f"{SPEEDS[model][setting]['roofline_fraction']:.0%}"]
    flops = read_json(FOLDER / f"results/pretrain/{model}-0.json")["training_flops"]
    assert told == [*numbers, f"{flops:.2e}"]


@pytest.mark.parametrize("seed", "01")
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_speed_up_at_equal_loss_is_that_between_the_neighbours_on_the_fronts(setting: str, seed: str) -> None:
    large = (loss("block-85m-2-local2_all-0"), speed("block-85m-2-local2_all", setting))
    small = (loss(f"block-19m-2-carried_all-{seed}"), speed("block-19m-2-carried_all", setting))
    vanilla = [(loss(f"vanilla-{size}-0"), speed(f"vanilla-{size}", setting)) for size in ("5m", "19m")]
    at_the_5m = between(small, large, vanilla[0][0]) / vanilla[0][1]
    if seed == "1":
        assert f"With the other\n  one the 2.8 is {at_the_5m:.1f}." in PAGE
        return
    found = [at_the_5m, large[1] / between(*vanilla, large[0])]
    with (FOLDER / "speedup.csv").open(encoding="utf-8", newline="") as file:
        lines = [row for row in csv.DictReader(file) if row["setting"] == setting and row["family"] == "block"]
    told = {row["at_the_loss_of"]: float(row["ratio"]) for row in lines}
    assert found == pytest.approx([told["vanilla-5m"], told["block-85m-2-local2_all"]])


def bounds(at: str, digits: int) -> str:
    """What either setting's interval is at the loss of a model."""
    with (FOLDER / "speedup.csv").open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["at_the_loss_of"] == at and row["family"] == "block"]
    (told,) = {f"{float(row['low']):.{digits}f} to {float(row['high']):.{digits}f}" for row in found}
    return told


def test_page_and_readme_tell_the_speed_up_with_its_interval() -> None:
    against = "2.8 times as fast as the vanilla transformer of 5M parameters (2.964 nats per token; 95 % interval"
    for page in (PAGE, README):
        text = " ".join(page.partition("![")[0].split())
        assert f"{against} {bounds('vanilla-5m', 1)})" in text
        assert f"1.43 times as fast ({bounds('block-85m-2-local2_all', 2)})" in text


def test_the_readme_quotes_the_records() -> None:
    quoted = re.findall(r"^\| .* \| ([\d.]+) \| ([\d,]+) \|$", README.partition("![")[0], re.MULTILINE)
    models = ("vanilla-5m", "block-19m-2-carried_all", "block-85m-2-local2_all")
    assert quoted == [(f"{loss(f'{model}-0'):.3f}", f"{speed(model, 'decode_heavy'):,.0f}") for model in models]


def test_trainings_again_have_nearly_the_losses_of_the_study_of_changes() -> None:
    again = [cell for cell in SCORED if (FOLDER.parent / f"changes/results/evaluate/{cell}.json").exists()]
    apart = [read_json(FOLDER.parent / f"changes/results/evaluate/{cell}.json")["loss"] - loss(cell) for cell in again]
    assert len(again) == 5
    assert max(map(abs, apart)) <= 0.003


@pytest.mark.parametrize("row", CARRIED, ids=[row[0] for row in CARRIED])
def test_carried_keys_have_their_losses_and_speeds(row: list[str]) -> None:
    model, *told = row
    base = re.sub(r"-carried.*", "-base", model)
    losses = [loss(f"{model}-{seed}") for seed in "01" if f"{model}-{seed}" in SCORED]
    numbers = (
        [*(f"{each:.3f}" for each in losses), f"{mean(losses):.3f}"]
        if len(losses) == 2
        else [f"{losses[0]:.3f}", "", ""]
    )
    for setting in SETTINGS:
        numbers += [f"{speed(model, setting):,.0f}", f"{speed(model, setting) / speed(base, setting):.0%}"]
    assert told == numbers


def score(record: dict[str, Any], task: str, metric: str) -> dict[str, Any] | None:
    return next((scored for scored in record["tasks"] if (scored["task"], scored["metric"]) == (task, metric)), None)


def agreement(task: str, metric: str) -> float | None:
    """Spearman's rank correlation with the held-out loss over all models, 1 for the same order."""
    found = [score(record, task, metric) for record in SCORED.values()]
    values = [scored["value"] for scored in found if scored]
    return SIGNS[metric] * float(spearmanr(list(map(loss, SCORED)), values).statistic) if values else None


@pytest.mark.parametrize("label", TASKS)
def test_a_task_has_its_rank_correlations(label: str) -> None:
    agreements = [agreement(TASKS[label], metric) for metric in SIGNS]
    accuracies = [scored for record in SCORED.values() if (scored := score(record, TASKS[label], "acc"))]
    low, high = (pick(scored["value"] for scored in accuracies) for pick in (min, max))
    chance = accuracies[0]["chance"]
    told = [*("" if found is None else f"{found:.2f}" for found in agreements), f"{low:.3f} to {high:.3f}"]
    assert rows(MEASURES, rf"{label} \| (.*) \| (.*) \| (.*) \| (.*) \| (.*)") == [
        [*told, f"{chance:.3f}" if chance else ""]
    ]


def test_bits_per_byte_rank_the_models_as_the_loss_does_far_better_than_accuracy() -> None:
    bits, accuracy = (
        mean(agreement(task, metric) or 0.0 for task in TASKS.values()) for metric in ("gold_bits_per_byte", "acc")
    )
    assert f"is {bits:.2f} for bits per byte and {accuracy:.2f} for accuracy" in " ".join(MEASURES.split())
    assert len(SCORED) == 14
