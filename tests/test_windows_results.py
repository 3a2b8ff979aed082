"""docs/results/windows.md, and what README.md quotes of it, against the records that it is from."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from functools import cache
from statistics import mean
from typing import Any

import pytest

from pipeline.base.files import read_json
from pipeline.benchmark.roofline import roofline, work
from pipeline.results.records import DeviceRates
from pipeline.study import cells, load_study
from pipeline.study.cells import model_config
from pipeline.study.schema import Setting
from tests.conftest import ROOT
from tests.result_pages import copies_by_offset

FOLDER = ROOT / "docs/results/windows"
TEXT = (ROOT / "docs/results/windows.md").read_text(encoding="utf-8")
PAGE, README = " ".join(TEXT.split()), " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
SETTINGS = ("decode_heavy", "prefill_heavy")
WITHOUT_WINDOWS = ("vanilla-5m_gqa-", "vanilla-19m_gqa-")  # trained for docs/results/equal_loss.md
SHORT, LONG = "windows_h100", "windows_8192_h100"


def of_models(stage: str, study: str) -> dict[str, dict[str, Any]]:
    """Records by model and seed."""
    paths = sorted((FOLDER / ("results" if study == SHORT else "results_8192") / stage).iterdir())
    if study == SHORT:
        before = ROOT / "docs/results/equal_loss/results" / stage
        paths += [path for path in sorted(before.iterdir()) if path.stem.startswith(WITHOUT_WINDOWS)]
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for path in paths:
        found[path.stem[:-2]][path.stem[-1]] = read_json(path)
    return found


SCORED, TRAINED = ({study: of_models(stage, study) for study in (SHORT, LONG)} for stage in ("evaluate", "pretrain"))
SPEEDS = {
    study: {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / file)}
    for study, file in ((SHORT, "speed.json"), (LONG, "speed_8192.json"))
}
MODELS = [(study, model) for study in (SHORT, LONG) for model in sorted({*SCORED[study], *SPEEDS[study]})]
EVALUATED = [(study, model) for study, model in MODELS if model in SCORED[study]]


def loss(study: str, model: str) -> float:
    return mean(scored["loss"] for scored in SCORED[study][model].values())


def speed(study: str, model: str, setting: str = "decode_heavy") -> float:
    found: float = SPEEDS[study][model][setting]["tokens_per_second"]
    return found


def rows(model: str, heading: str) -> list[list[str]]:
    """The model's rows in the section of that heading."""
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(rf"^\| `{model}` \|(.*)\|$", section, re.MULTILINE)
    return [[entry.strip() for entry in row.split("|")] for row in found]


@cache
def configs(study: str) -> dict[str, Any]:
    loaded = load_study(ROOT / f"studies/{study}.yaml")
    return {cell.name[:-2]: model_config(loaded, cell, loaded.tokenize.vocabulary) for cell in cells(loaded)}


def least_work(study: str, model: str, name: str) -> tuple[Setting, int, Any]:
    measured = SPEEDS[study][model][name]
    return Setting(measured["prompt"], measured["new_tokens"]), measured["batch"], configs(study)[model]


def of_the_limit(study: str, model: str, name: str) -> float:
    """At the rates of the device that vanilla 5M's record tells: the limits of the records count too many bytes."""
    setting, batch, config = least_work(study, "vanilla-5m_gqa", name)
    known, needed = SPEEDS[study]["vanilla-5m_gqa"][name]["roofline"], work(config, setting, batch, 2)
    seconds, share = setting.new_tokens / known["tokens_per_second"], known["compute_share"]
    rate = needed.bytes / ((1 - share) * seconds)
    rates = DeviceRates(flops=needed.flops / (share * seconds), copy_bandwidth=rate, read_bandwidth=rate)
    setting, batch, config = least_work(study, model, name)
    return speed(study, model, name) / roofline(config, setting, batch, 2, rates).tokens_per_second


def speeds_told(study: str, model: str) -> list[str]:
    if model not in SPEEDS[study]:
        return [""] * 5
    told = []
    for setting in SETTINGS:
        told += [f"{speed(study, model, setting):,.0f}", f"{of_the_limit(study, model, setting):.0%}"]
    return [*told, f"{SPEEDS[study][model]['decode_heavy']['bytes_per_sample'] / 1e6:.1f}"]


def told_of(study: str, model: str) -> list[str]:
    by_seed = [f"{scored['loss']:.3f}" for _, scored in sorted(SCORED[study].get(model, {}).items())]
    average = [f"{loss(study, model):.3f}" if by_seed else ""] if study == SHORT else []
    flops = [trained["training_flops"] for trained in TRAINED[study].get(model, {}).values()]
    return [", ".join(by_seed), *average, *speeds_told(study, model), f"{mean(flops):.2e}" if flops else ""]


def scores_told(study: str, model: str) -> list[str]:
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for scored in SCORED[study][model].values():
        for score in scored["tasks"]:
            scores[score["task"], score["metric"]].append(score["value"])
    told = [f"{loss(study, model):.3f}", f"{mean(scores['lambada_openai', 'gold_bits_per_byte']):.2f}"]
    told += [f"{mean(scores[task, 'acc']):.3f}" for task in ("lambada_openai", "sciq")]
    told.append(f"{mean(scores['piqa', 'gold_bits_per_byte']):.2f}")
    length = model.split("-")[2:3]
    return [*told, *copies_by_offset(SCORED[study][model].values(), int(length[0]) if length else 1)]


def places_told(model: str) -> list[str]:
    """Loss in quarters of documents of 8,192 tokens."""
    (scored,) = SCORED[LONG][model].values()
    (by_context,) = scored["loss_by_context"]
    losses = by_context["losses"]
    return [f"{mean(losses[first : first + 4]):.2f}" for first in range(0, 16, 4)]


def ratios(name: str) -> dict[tuple[str, str], dict[str, str]]:
    """The report's ratios of all grouped models, by setting and loss in three digits."""
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if "L=" not in row["family"]]
    return {(row["setting"], f"{float(row['loss']):.3f}"): row for row in found}


def ratio_told(row: dict[str, str]) -> str:
    """1.14 (0.97 to 1.30); without an interval where the report has none."""
    bounds = f" ({float(row['low']):.2f} to {float(row['high']):.2f})" if row["low"] else ""
    return f"{float(row['ratio']):.2f}{bounds}"
