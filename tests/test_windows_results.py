"""docs/results/windows.md, and what README.md quotes of it, against the records that it is from."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from functools import cache
from math import log
from statistics import mean
from typing import Any

import pytest

from pipeline.base.files import read_json
from pipeline.benchmark.roofline import roofline, work
from pipeline.results.records import DeviceRates, Roofline
from pipeline.study import cells, load_study
from pipeline.study.cells import model_config
from pipeline.study.schema import Setting
from tests.conftest import ROOT
from tests.result_pages import copies_by_offset, scores

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


def limit(study: str, model: str, name: str) -> Roofline:
    """At the rates of the device that vanilla 5M's record tells: the limits of the records count too many bytes."""
    setting, batch, config = least_work(study, "vanilla-5m_gqa", name)
    known, needed = SPEEDS[study]["vanilla-5m_gqa"][name]["roofline"], work(config, setting, batch, 2)
    seconds, share = setting.new_tokens / known["tokens_per_second"], known["compute_share"]
    rate = needed.bytes / ((1 - share) * seconds)
    rates = DeviceRates(flops=needed.flops / (share * seconds), copy_bandwidth=rate, read_bandwidth=rate)
    setting, batch, config = least_work(study, model, name)
    return roofline(config, setting, batch, 2, rates)


def of_the_limit(study: str, model: str, name: str) -> float:
    return speed(study, model, name) / limit(study, model, name).tokens_per_second


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
    length = model.split("-")[2:3]
    scored = SCORED[study][model].values()
    return [*scores(scored), *copies_by_offset(scored, int(length[0]) if length else 1)]


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


@pytest.mark.parametrize(("study", "model"), MODELS)
def test_a_model_has_its_losses_speeds_and_costs(study: str, model: str) -> None:
    heading = "At 2,048 tokens" if study == SHORT else "At 8,192 tokens"
    assert rows(model, heading)[0] == told_of(study, model)


@pytest.mark.parametrize(("study", "model"), EVALUATED)
def test_a_model_has_its_scores_and_copies(study: str, model: str) -> None:
    assert scores_told(study, model) in rows(model, "Equal loss, accuracy and copies")


@pytest.mark.parametrize("model", SCORED[LONG])
def test_a_model_has_its_losses_by_place_in_a_document(model: str) -> None:
    assert rows(model, "At 8,192 tokens")[1] == places_told(model)


def test_the_ratios_are_the_reports() -> None:
    files = {"with and ": "speedup", "": "speedup_without_windows", "with all heads, ": "speedup_all_heads"}
    told = re.findall(r"\| (with .*)?without windows \| ([\d.]+) \| ([^|]+) \| ([^|]+) \|", TEXT)
    assert len(told) == 9
    for which, at, *found in told:
        assert found == [ratio_told(ratios(files[which])[setting, at]) for setting in SETTINGS]


def test_the_headline_is_the_reports() -> None:
    known, long = ratios("speedup"), ratios("speedup_8192")
    level, windows, low = (known["decode_heavy", at] for at in ("2.942", "2.953", "2.794"))
    assert level["at_the_loss_of"] == "vanilla-5m_gqa"
    assert windows["at_the_loss_of"] == "vanilla-5m_gqa_window"
    between = "({:.2f} to {:.2f})".format(float(windows["low"]), float(windows["high"]))
    assert f"generate {float(windows['ratio']):.2f} times as fast (95 % interval {between[1:]}" in PAGE
    assert f"where they are {float(level['ratio']):.2f} times as fast {ratio_told(level)[5:]}" in PAGE
    assert f"at 2.794 they are slower, {float(low['ratio']):.2f} times" in PAGE
    assert f"falls from {float(level['ratio']):.2f} to {float(windows['ratio']):.2f} within 0.011 nats" in PAGE
    assert f"they are {ratio_told(long['decode_heavy', '3.036'])} times as fast**" in PAGE
    assert f"at 3.131 {ratio_told(long['decode_heavy', '3.131'])} times" in PAGE
    assert f"{float(windows['ratio']):.2f} times at 2.953 nats {between}".replace("(", "(95 % interval ") in README
    assert f"{float(low['ratio']):.2f} times at 2.794" in README
    bare, bare_low = (ratios("speedup_without_windows")["decode_heavy", at] for at in ("2.942", "2.794"))
    between = "({:.2f} to {:.2f})".format(float(bare["low"]), float(bare["high"]))
    assert f"{float(bare['ratio']):.2f} times at 2.942 {between}, {float(bare_low['ratio']):.2f} at 2.794" in README
    heads = [f"{float(ratios('speedup_all_heads')['decode_heavy', at]['ratio']):.2f}" for at in ("2.967", "2.794")]
    assert f"against all heads {' and '.join(heads)}." in README
    assert f"with which the paper compares, it is {heads[0]} times** at 2.967" in PAGE


def test_h100_tells_what_is_left() -> None:
    page = (ROOT / "docs/results/h100.md").read_text(encoding="utf-8")
    ranges = []
    for name, ends in (("speedup", ("2.794", "2.942")), ("speedup_all_heads", ("2.794", "2.967"))):
        ranges.append(" to ".join(f"{float(ratios(name)['decode_heavy', at]['ratio']):.2f}" for at in ends))
    assert " and ".join(ranges) in page


def test_readme_has_the_models_of_the_headline() -> None:
    models = (
        "vanilla-5m_gqa",
        "vanilla-5m_gqa_window",
        "block-19m_gqa-2-memory64_all",
        "block-19m_gqa_window-2-memory64_two_all",
    )
    told = [(f"{loss(SHORT, model):.3f}", f"{speed(SHORT, model):,.0f}") for model in models]
    assert re.findall(r"\| [^|]* \| ([\d.]+) \| ([\d,]+) \|", README) == told
    two, plain = models[3], models[0]
    assert f"{faster(two, plain, LONG)} as fast, {worse(two, plain, LONG)} behind" in README


def faster(model: str, other: str, study: str = SHORT) -> str:
    return f"{speed(study, model) / speed(study, other):.2f} times"


def worse(model: str, other: str, study: str = SHORT) -> str:
    return f"{loss(study, model) - loss(study, other):.3f} nats"


def test_what_the_page_says_of_models() -> None:
    plain, windows, one = ("vanilla-5m_gqa", "vanilla-5m_gqa_window", "vanilla-5m_gqa_window_one")
    memory, short, two = (
        f"block-19m_gqa{form}" for form in ("-2-memory64_all", "_window-2-memory64_all", "_window-2-memory64_two_all")
    )
    assert f"On an H200 it is {faster(memory, plain)} as fast" in PAGE
    assert f"{faster(windows, plain)} as fast as without windows, for {worse(windows, plain)}" in PAGE
    assert f"One layer that sees everything is not enough: {worse(one, plain)}" in PAGE
    assert f"{faster(two, memory)} the tokens per second, with memories at two layers, for {worse(two, memory)}" in PAGE
    cost = 1 - speed(SHORT, two) / speed(SHORT, short)
    assert f"{worse(short, two)} for {cost:.0%} of the speed".replace("%", " %") in PAGE
    assert f"and is {faster('vanilla-19m_gqa_window', 'block-85m_gqa_window-2-memory64_two_all')} as fast" in PAGE
    narrow = "block-10m_gqa_window-2-memory64_two_all"
    assert f"is {faster(narrow, two)} as fast and {worse(narrow, two)} worse" in PAGE
    assert f"is {faster(two, plain, LONG)} as fast as vanilla 5M and {worse(two, plain, LONG)} behind it" in PAGE
    costs = sorted(worse(model, plain, LONG)[:4] for model in (windows, one))
    assert f"windows cost vanilla 5M {costs[0]} to" in PAGE
    spread = [scored["loss"] for scored in SCORED[SHORT][windows].values()]
    assert f"Its three seeds are {max(spread) - min(spread):.3f} apart" in PAGE


def test_parts_of_the_limit() -> None:
    products = [
        f"{100 * limit(SHORT, model, 'decode_heavy').compute_share:.0f} %"
        for model in ("block-19m_gqa_window-2-memory64_two_all", "vanilla-5m_gqa_window")
    ]
    assert "Products are {} of its limit's time by then, where they are {} of that".format(*products) in PAGE
    windowed = [model for model in SPEEDS[SHORT] if "window" in model]
    parts = {model: 100 * of_the_limit(SHORT, model, "decode_heavy") for model in windowed}
    block, vanilla = (
        [part for model, part in parts.items() if model.startswith(family)] for family in ("block", "vanilla")
    )
    told = f"at {min(block):.0f} to {max(block):.0f} % of their limit** decode-heavy, vanilla ones at "
    assert f"{told}{min(vanilla):.0f} to {max(vanilla):.0f} %" in PAGE


def test_what_would_be_needed() -> None:
    large, two, windows = (
        "block-85m_gqa_window-2-memory64_two_all",
        "block-19m_gqa_window-2-memory64_two_all",
        "vanilla-5m_gqa_window",
    )
    per_e = (loss(SHORT, two) - loss(SHORT, large)) / log(speed(SHORT, two) / speed(SHORT, large))
    heads = float(ratios("speedup_all_heads")["decode_heavy", "2.967"]["ratio"])
    grouped = float(ratios("speedup")["decode_heavy", "2.953"]["ratio"])
    assert f"**Loss**: {per_e * log(10 / heads):.3f} nats for 10 times against all heads" in PAGE
    assert f"heads, {per_e * log(5 / grouped):.2f} nats for 5 times against grouped queries" in PAGE
    assert f"a factor of e per {per_e:.3f} nats" in PAGE
    limits = [limit(SHORT, model, "decode_heavy").tokens_per_second for model in (two, windows)]
    assert f"would be {limits[0] / limits[1]:.2f} times as fast as vanilla 5M with windows" in PAGE
    assert f"as measured it is {faster(two, windows)}" in PAGE
    assert f"it is {faster(two, windows, LONG)} as fast as vanilla 5M with windows, and" in PAGE
    assert f"and has {worse(windows, two, LONG)} less" in PAGE


def test_every_model_saw_the_same_tokens() -> None:
    for study, model in EVALUATED:
        for trained in TRAINED[study][model].values():
            assert (f"{trained['tokens']:,}", f"{trained['steps']:,}") == ("100,007,936", "3,052")
            assert not trained["diverged"]
