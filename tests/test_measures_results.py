"""measures.md and the carried keys of changes.md, against their records."""

from __future__ import annotations

import re
from statistics import mean
from typing import Any

import pytest
from scipy.stats import spearmanr

from pipeline.base.files import read_json
from tests.conftest import ROOT

FOLDER = ROOT / "docs/results/measures"
MEASURES, CHANGES = ((FOLDER.parent / f"{name}.md").read_text(encoding="utf-8") for name in ("measures", "changes"))
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


CARRIED = rows(CHANGES, r"`(.*-carried.*)` \| (.*) \| (.*) \| (.*) \| (.*) \| (.*) \| (.*) \| (.*)")


def speed(model: str, setting: str) -> float:
    return float(SPEEDS[model][setting]["tokens_per_second"])


def loss(cell: str) -> float:
    return float(SCORED[cell]["loss"])


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
