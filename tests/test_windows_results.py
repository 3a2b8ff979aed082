"""docs/results/windows.md, and what README.md quotes of it, against the records that it is from."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from functools import cache
from itertools import chain
from math import exp, log
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
H100_COLUMNS = (("tokens_per_second", ",.0f"), ("roofline_fraction", ".0%"))
WITHOUT_WINDOWS = ("vanilla-5m_gqa-", "vanilla-19m_gqa-")  # trained for docs/results/equal_loss.md
AGAINST = ("vanilla", "vanilla, grouped-query")
SHORT, LONG, LONGEST = "windows_h100", "windows_8192_h100", "windows_16384_h100"
RESULTS = {SHORT: "results", LONG: "results_8192", LONGEST: "results_16384"}
HEADINGS = {LONG: "At 8,192 tokens", LONGEST: "At 16,384 tokens"}


def of_models(stage: str, study: str) -> dict[str, dict[str, Any]]:
    """Records by model and seed."""
    paths = sorted((FOLDER / RESULTS[study] / stage).iterdir())
    if study == SHORT:
        before = ROOT / "docs/results/equal_loss/results" / stage
        paths += [path for path in sorted(before.iterdir()) if path.stem.startswith(WITHOUT_WINDOWS)]
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for path in paths:
        found[path.stem[:-2]][path.stem[-1]] = read_json(path)
    return found


SCORED, TRAINED = ({study: of_models(stage, study) for study in RESULTS} for stage in ("evaluate", "pretrain"))
SPEEDS = {
    study: {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / file)}
    for study, file in ((SHORT, "speed.json"), (LONG, "speed_8192.json"))
}
ON_H100, LONGEST_ON_H100, BEFORE, RINGS = (
    {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / file)}
    for file in ("speed_8192_h100.json", "speed_16384_h100.json", "speed_8192_before.json", "speed_8192_ring.json")
)
RATES_H100 = {record["cell"]["name"][:-2]: record["rates"] for record in read_json(FOLDER / "speed_8192_h100.json")}
MODELS = [(study, model) for study in (SHORT, LONG) for model in sorted(SPEEDS[study])]
EVALUATED = [(study, model) for study in RESULTS for model in sorted(SCORED[study])]


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
    told = []
    for setting in SETTINGS:
        told += [f"{speed(study, model, setting):,.0f}", f"{of_the_limit(study, model, setting):.0%}"]
    return [*told, f"{SPEEDS[study][model]['decode_heavy']['bytes_per_sample'] / 1e6:.1f}"]


def speeds_on_h100(model: str, on: dict[str, Any] = ON_H100) -> list[str]:
    measured = [on[model][setting] for setting in SETTINGS]
    told = [f"{found[key]:{form}}" for found in measured for key, form in H100_COLUMNS]
    return [*told, f"{measured[0]['bytes_per_sample'] / 1e6:.1f}"]


def told_of(study: str, model: str, speeds: list[str]) -> list[str]:
    by_seed = [f"{scored['loss']:.3f}" for _, scored in sorted(SCORED[study].get(model, {}).items())]
    average = [f"{loss(study, model):.3f}" if by_seed else ""] if study == SHORT else []
    flops = [trained["training_flops"] for trained in TRAINED[study].get(model, {}).values()]
    return [", ".join(by_seed), *average, *speeds, f"{mean(flops):.2e}" if flops else ""]


def scores_told(study: str, model: str) -> list[str]:
    length = model.split("-")[2:3]
    scored = SCORED[study][model].values()
    return [*scores(scored), *copies_by_offset(scored, int(length[0]) if length else 1)]


def places_told(study: str, model: str) -> list[str]:
    """Loss in quarters of documents of the study's context length."""
    of_seeds = [scored["loss_by_context"][0]["losses"] for scored in SCORED[study][model].values()]
    return [f"{mean(chain(*(losses[first : first + 4] for losses in of_seeds))):.2f}" for first in range(0, 16, 4)]


def ratios(name: str, against: str | None = None) -> dict[tuple[str, str], dict[str, str]]:
    """The report's ratios of all grouped models, by setting and loss in three digits."""
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if "L=" not in row["family"]]
    if against is not None:
        found = [row for row in found if row["against"] == against]
    return {(row["setting"], f"{float(row['loss']):.3f}"): row for row in found}


def ratio_told(row: dict[str, str]) -> str:
    """1.14 (0.97 to 1.30); without an interval where the report has none."""
    bounds = f" ({float(row['low']):.2f} to {float(row['high']):.2f})" if row["low"] else ""
    return f"{float(row['ratio']):.2f}{bounds}"


@pytest.mark.parametrize(("study", "model"), MODELS)
def test_a_model_has_its_losses_speeds_and_costs(study: str, model: str) -> None:
    heading = "At 2,048 tokens" if study == SHORT else "At 8,192 tokens"
    assert told_of(study, model, speeds_told(study, model)) in rows(model, heading)


@pytest.mark.parametrize("model", ON_H100)
def test_a_model_has_its_speeds_on_an_h100(model: str) -> None:
    assert told_of(LONG, model, speeds_on_h100(model)) in rows(model, "At 8,192 tokens")


@pytest.mark.parametrize("model", SCORED[LONGEST])
def test_a_model_has_its_losses_at_16384_tokens_and_its_speeds_if_timed(model: str) -> None:
    speeds = speeds_on_h100(model, LONGEST_ON_H100) if model in LONGEST_ON_H100 else [""] * 5
    assert told_of(LONGEST, model, speeds) in rows(model, HEADINGS[LONGEST])


@pytest.mark.parametrize(("study", "model"), EVALUATED)
def test_a_model_has_its_scores_and_copies(study: str, model: str) -> None:
    assert scores_told(study, model) in rows(model, "Equal loss, accuracy and copies")


@pytest.mark.parametrize(("study", "model"), [(study, model) for study in HEADINGS for model in SCORED[study]])
def test_a_model_has_its_losses_by_place_in_a_document(study: str, model: str) -> None:
    assert places_told(study, model) in rows(model, HEADINGS[study])


def test_the_ratios_are_the_reports() -> None:
    files = {"with and ": "speedup", "": "speedup_without_windows", "with all heads, ": "speedup_all_heads"}
    told = re.findall(r"\| (with .*)?without windows \| ([\d.]+) \| ([^|]+) \| ([^|]+) \|", TEXT)
    assert len(told) == 9
    for which, at, *found in told:
        assert found == [ratio_told(ratios(files[which])[setting, at]) for setting in SETTINGS]


def test_the_ratios_at_8192_are_the_reports() -> None:
    section = TEXT.split("## At 8,192 tokens\n")[1].split("\n## ")[0]
    told = re.findall(r"\| with ([^|]+) \| ([\d.]+) \| ([^|]+) \| ([^|]+) \|", section)
    assert len(told) == 7
    for which, at, *found in told:
        against = AGAINST[which != "all heads"]
        assert found == [ratio_told(ratios("speedup_8192_h100", against)[setting, at]) for setting in SETTINGS]


def test_the_headline_is_the_reports() -> None:
    short, heads, grouped = ratios("speedup"), *(ratios("speedup_8192_h100", against) for against in AGAINST)
    level, windows, low = (short["decode_heavy", at] for at in ("2.942", "2.953", "2.794"))
    assert level["at_the_loss_of"] == "vanilla-5m_gqa"
    assert windows["at_the_loss_of"] == "vanilla-5m_gqa_window"
    long, beside = heads["decode_heavy", "2.922"], grouped["decode_heavy", "2.922"]
    assert beside["at_the_loss_of"] == "block-39m_gqa_window_256-2-memory64_two_all"
    between = ratio_told(long).partition("(")[2][:-1]
    assert f"{float(long['ratio']):.2f} times as fast as vanilla transformers with all heads at 2.922" in PAGE
    assert f"(95 % interval {between}; the paper compares with these)" in PAGE
    told = f"{float(beside['ratio']):.2f} times as fast as those with grouped queries {ratio_told(beside)[5:]}"
    at_low = float(grouped["decode_heavy", "2.870"]["ratio"])
    assert f"{told}, one NVIDIA H100. At 2.870 the latter is {at_low:.2f}." in PAGE
    assert f"At 2,048 tokens they are {float(level['ratio']):.2f} times" in PAGE
    assert f"with grouped queries at 2.942 {ratio_told(level)[5:]}" in PAGE
    assert f"{float(windows['ratio']):.2f} times as one with sliding windows at 2.953 {ratio_told(windows)[5:]}" in PAGE
    assert f"at 2.794 they are slower, {float(low['ratio']):.2f} times" in PAGE
    assert f"falls from {float(level['ratio']):.2f} to {float(windows['ratio']):.2f} within 0.011 nats" in PAGE
    limits = [float(grouped["decode_heavy", at]["roofline_ratio"]) for at in ("2.922", "2.870")]
    assert "{:.2f} times apart at 2.922 nats and {:.2f} at 2.870".format(*limits) in PAGE
    everything = [f"{float(ratios('speedup_all_heads')['decode_heavy', at]['ratio']):.2f}" for at in ("2.967", "2.794")]
    assert f"with which the paper compares, it is {everything[0]} times** at 2.967" in PAGE


def test_the_headline_of_the_readme_is_the_reports() -> None:
    heads, grouped = (ratios("speedup_8192_h100", against) for against in AGAINST)
    at, low = ([of["decode_heavy", loss] for of in (heads, grouped)] for loss in ("2.922", "2.870"))
    assert f"{float(at[0]['ratio']):.2f} times as fast as vanilla transformers at 2.922 nats" in README
    assert f"{float(at[1]['ratio']):.2f} with grouped queries {ratio_told(at[1])[5:]}" in README
    assert "At 2.870: {} and {}.".format(*(f"{float(row['ratio']):.2f}" for row in low)) in README
    assert f"With sliding windows: {beside_the_better_seed():.2f} at 3.021" in README
    short = [
        f"{float(ratios(file)['decode_heavy', '2.794']['ratio']):.2f}" for file in ("speedup_all_heads", "speedup")
    ]
    assert "At 2,048: {}, about 0.7 and {} times at 2.794".format(*short) in README


def test_h100_tells_what_is_left() -> None:
    page = (ROOT / "docs/results/h100.md").read_text(encoding="utf-8")
    ranges = []
    for name, ends in (("speedup", ("2.794", "2.942")), ("speedup_all_heads", ("2.794", "2.967"))):
        ranges.append(" to ".join(f"{float(ratios(name)['decode_heavy', at]['ratio']):.2f}" for at in ends))
    assert " and ".join(ranges) in page
    long = [
        f"{float(ratios('speedup_8192_h100', against)['decode_heavy', at]['ratio']):.2f}"
        for against, at in zip(reversed(AGAINST), ("2.922", "2.922"), strict=True)
    ]
    assert f"At contexts of 8,192 tokens it is {' and '.join(long)}." in page


def test_readme_has_the_models_of_the_headline() -> None:
    plain, windows, block = "vanilla-5m_gqa", "vanilla-5m_gqa_window", "block-19m_gqa{}-2-memory64{}_all"
    short = (plain, windows, block.format("", ""), block.format("_window", "_two"))
    long = (plain, f"{windows}_half", block.format("", "_two"), block.format("_window_512", "_two"))
    largest = "block-39m_gqa_window_256-2-memory64_two_all"
    assert f"| 39M | | | {loss(LONG, largest):.3f} | {on_h100(largest):,.0f} |" in README
    one = "vanilla-19m_mqa"
    losses = f"{loss(SHORT, one):.3f} | | {loss(LONG, one):.3f}"
    assert f"| 19M multi-query | {losses} | {on_h100(one):,.0f} |" in README
    told = re.findall(r"\| [^|]* \| ([\d.]+) \| ([\d,]+) \| ([\d.]+) \| ([\d,]+) \|", README)
    assert [row[:2] for row in told[1:]] == [(f"{loss(SHORT, of):.3f}", f"{speed(SHORT, of):,.0f}") for of in short]
    at_8192 = [(f"{loss(LONG, of):.3f}", f"{on_h100(of):,.0f}") for of in ("vanilla-5m", *long)]
    assert [row[2:] for row in told] == at_8192
    page = (ROOT / "docs/results/equal_loss.md").read_text(encoding="utf-8")
    row = re.findall(r"^\| `vanilla-5m` \| [^|]* \| ([\d.]+) \| ([\d,]+) \|", page, re.MULTILINE)
    assert row == [told[0][:2]]


def on_h100(model: str) -> float:
    found: float = ON_H100[model]["decode_heavy"]["tokens_per_second"]
    return found


def between(at: float, *models: str) -> float:
    """Tokens per second on an H100 where the line between two models has that loss."""
    (low, slow), (high, fast) = ((loss(LONG, model), log(on_h100(model))) for model in models)
    return exp(slow + (fast - slow) * (at - low) / (high - low))


def beside_the_better_seed() -> float:
    """How much faster block transformers are at the loss of the better seed of vanilla 5M with three global layers."""
    half = "vanilla-5m_gqa_window_half"
    at = min(scored["loss"] for scored in SCORED[LONG][half].values())
    return between(at, *(f"block-19m_gqa_window{form}-2-memory64_two_all" for form in ("_512", ""))) / on_h100(half)


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
    spread = [scored["loss"] for scored in SCORED[SHORT][windows].values()]
    assert f"Its three seeds are {max(spread) - min(spread):.3f} apart" in PAGE


def test_what_the_page_says_of_models_at_8192_tokens() -> None:
    heads, plain, half = "vanilla-5m", "vanilla-5m_gqa", "vanilla-5m_gqa_window_half"
    block, near, far = (f"block-19m_gqa{form}-2-memory64_two_all" for form in ("", "_window", "_window_512"))
    middle, big = "block-39m_gqa_window_256-2-memory64_two_all", "block-85m_gqa_window-2-memory64_two_all"
    ahead = f"by {worse(plain, far, LONG)}, at {on_h100(far) / on_h100(plain):.2f} times its tokens per second"
    assert ahead in PAGE
    behind = worse(near, plain, LONG)[:5]
    assert f"With one of 128 it is {behind} behind, at {on_h100(near) / on_h100(plain):.2f} times" in PAGE
    faster_by = f"{on_h100(far) / on_h100(block):.2f} times"
    assert f"costs {worse(far, block, LONG)} against seeing all blocks, and brings {faster_by}" in PAGE
    before = BEFORE[far]["decode_heavy"]["tokens_per_second"]
    assert f"the tokens per second, {before / on_h100(block):.2f} times by one engine" in PAGE
    one = "block-19m_gqa_window_one-2-memory64{}_all"
    losses = [f"{loss(LONG, one.format(form)):.3f}" for form in ("_two", "")]
    assert "{} with memories at two layers and {} at one".format(*losses) in PAGE
    seeds = sorted(scored["loss"] for scored in SCORED[LONG][half].values())
    copies = [copies_by_offset([scored], 1)[1] for _, scored in sorted(SCORED[LONG][half].items())]
    assert "one seed has {:.3f}, the other {:.3f}".format(*seeds) in PAGE
    assert "costs {} nats with the first and {} with the second".format(*copies) in PAGE
    assert f"as fast as that better seed: {beside_the_better_seed():.2f} times" in PAGE
    assert f"39M with that window has {loss(LONG, middle):.3f} nats at {on_h100(middle):,.0f} tokens per second" in PAGE
    assert f"with one of 128 blocks {loss(LONG, big):.3f} at {on_h100(big):,.0f}**" in PAGE
    of_seeds = [scored for _, scored in sorted(SCORED[LONG][block.replace("gqa", "gqa_window_256")].items())]
    assert "says more of seeds than of windows**: {:.3f} and {:.3f}".format(*(of["loss"] for of in of_seeds)) in PAGE
    first, second = (copies_by_offset([of], 2)[1].replace(", ", " and ") for of in of_seeds)
    assert f"costs {first} nats by offset with the first and {second} with the second" in PAGE
    assert f"Vanilla 19M with two layers has {loss(LONG, 'vanilla-19m_gqa_window'):.3f} and copies as badly" in PAGE
    # Along the line between vanilla 5M and 19M with all heads, were the first as good as with grouped queries.
    per_nat = log(on_h100(heads) / on_h100("vanilla-19m")) / (loss(LONG, plain) - loss(LONG, "vanilla-19m"))
    beside = on_h100(heads) / exp(per_nat * (loss(LONG, plain) - loss(LONG, middle)))
    assert f"the ratio at 2.922 would be {on_h100(middle) / beside:.2f}" in PAGE


def test_what_one_key_value_head_does_at_8192_tokens() -> None:
    plain, one, two, heads = "vanilla-5m_gqa", "vanilla-19m_mqa", "vanilla-19m_gqa", "vanilla-19m"
    small, wide = (f"block-19m_gqa_window_{window}-2-memory64_two_all" for window in (512, 256))
    middle = "block-39m_gqa_window_256-2-memory64_two_all"
    rows = {at: ratios("speedup_8192_h100", AGAINST[1])["decode_heavy", at] for at in ("2.922", "2.870")}
    faster_by = on_h100(one) / on_h100(plain)
    assert f"{faster_by:.2f} times its tokens per second, and {worse(plain, one, LONG)} less" in PAGE
    assert f"Beside it the ratio is {float(rows['2.870']['ratio']):.2f} at 2.870 nats" in PAGE
    without = on_h100(middle) / between(loss(LONG, middle), plain, two)
    assert f"key/value heads at 19M, it was {without:.2f} at 2.922" in PAGE
    seeds = [f"{scored['loss']:.3f}" for _, scored in sorted(SCORED[LONG][one].items())]
    told = "{} and {} by seed, where two have {:.3f}, all eight {:.3f}"
    assert told.format(*seeds, loss(LONG, two), loss(LONG, heads)) in PAGE
    assert f"It brings {on_h100(one) / on_h100(two):.2f} times the tokens per second of two" in PAGE
    assert f"one key/value head has {loss(LONG, one):.3f} at {on_h100(one):,.0f}" in PAGE
    needed = 5 * on_h100(middle) / float(rows["2.922"]["ratio"])
    per_e = (loss(LONG, wide) - loss(LONG, small)) / log(on_h100(wide) / on_h100(small))
    there = loss(LONG, small) + per_e * log(needed / on_h100(small))
    assert f"{needed / on_h100(middle):.2f} times the tokens per second of block 39M at its loss" in PAGE
    assert f"or {there - loss(LONG, middle):.3f} nats less at the speed that takes, {needed:,.0f} tokens" in PAGE
    assert f"where the block front has {there:.3f}" in PAGE
    assert ON_H100[middle]["decode_heavy"]["roofline"]["tokens_per_second"] > needed


def test_what_the_page_says_of_16384_tokens() -> None:
    small, one, block = "vanilla-5m_gqa", "vanilla-19m_mqa", "block-39m_gqa_window_256-2-memory64_two_all"
    wide = "block-19m_gqa_window_512-2-memory64_two_all"
    found = ratios("speedup_16384_h100", AGAINST[1])
    told = " | ".join(ratio_told(found[setting, "3.005"]) for setting in SETTINGS)
    assert f"| with grouped queries | 3.005 | {told} |" in PAGE
    row = found["decode_heavy", "3.005"]
    assert row["at_the_loss_of"] == block
    assert f"At 16,384 it is {ratio_told(row)[:4]} times as fast as grouped queries at 3.005" in PAGE
    told = f"At 16,384: {ratio_told(row)[:4]} with grouped queries at 3.005, but vanilla leads in long documents"
    assert told in README
    seeds = [scored["loss"] for _, scored in sorted(SCORED[LONGEST][block].items())]
    assert "Its seeds have {:.3f} and {:.3f}".format(*seeds) in PAGE
    assert min(seeds) < 3 < loss(LONGEST, block)
    assert f"the mean misses it by {loss(LONGEST, block) - 3:.3f}" in PAGE
    costs = [loss(LONGEST, model) - loss(LONG, model) for model in (small, one, block, wide)]
    assert "by {:.3f} nats vanilla 5M, {:.3f} vanilla 19M, {:.3f} block 39M, {:.3f} block 19M".format(*costs) in PAGE
    assert f"is {worse(wide, small, LONGEST)} behind vanilla 5M" in PAGE
    first, *later = behind(LONGEST, block, small)
    assert first < 0
    assert max(behind(LONG, block, small)) < 0
    assert "from the second quarter on by {:.2f}, {:.2f} and {:.2f} nats".format(*later) in PAGE
    assert f"in documents that fill the context another {later[-1]:.2f}" in PAGE
    parts = [f"{100 * on[one]['decode_heavy']['roofline_fraction']:.0f} %" for on in (LONGEST_ON_H100, ON_H100)]
    assert "makes {} of its limit, where it made {} at 8,192".format(*parts) in PAGE
    limits = float(row["roofline_ratio"])
    share = LONGEST_ON_H100[block]["decode_heavy"]["roofline_fraction"]
    nearer = limits * share / ON_H100[one]["decode_heavy"]["roofline_fraction"]
    assert f"With that part the ratio would be {nearer:.2f}; at the limits of both it is {limits:.2f}" in PAGE


def behind(study: str, model: str, other: str) -> list[float]:
    """Nats by which a model is worse in each quarter of long documents, as told."""
    told = (places_told(study, each) for each in (model, other))
    return [float(own) - float(its) for own, its in zip(*told, strict=True)]


def test_what_was_predicted_of_16384_tokens() -> None:
    """From 8,192: half the batch, at the rates and the part of the limit of there."""
    longer = load_study(ROOT / f"studies/{LONGEST}.yaml")

    def predicted(model: str) -> float:
        measured, rates = ON_H100[model]["decode_heavy"], DeviceRates(**RATES_H100[model])
        setting = longer.benchmark.settings["decode_heavy"]
        bound = roofline(configs(LONGEST)[model], setting, measured["batch"] // 2, 2, rates)
        return float(bound.tokens_per_second * measured["roofline_fraction"])

    block, one = "block-39m_gqa_window_256-2-memory64_two_all", "vanilla-19m_mqa"
    speeds = [LONGEST_ON_H100[model]["decode_heavy"]["tokens_per_second"] for model in (block, one)]
    told = "predicted from 8,192 tokens was {:.2f} times the tokens per second of vanilla 19M, measured {:.2f}"
    assert told.format(predicted(block) / predicted(one), speeds[0] / speeds[1]) in PAGE


def test_what_one_key_value_head_does_at_2048_tokens() -> None:
    plain, one, two = "vanilla-5m_gqa", "vanilla-19m_mqa", "vanilla-19m_gqa"
    (record,) = read_json(FOLDER / "speed_h100.json")
    made = record["settings"]["decode_heavy"]["tokens_per_second"]
    (beside,) = (
        found["settings"]["decode_heavy"]["tokens_per_second"]
        for found in read_json(FOLDER.parent / "memory/speed_grouped.json")
        if found["cell"]["name"] == f"{plain}-0"
    )
    seeds = [f"{scored['loss']:.3f}" for _, scored in sorted(SCORED[SHORT][one].items())]
    assert f"costs vanilla 19M {worse(one, two)} at this length**: {' and '.join(seeds)} by seed" in PAGE
    assert f"{made:,.0f} tokens per second decode-heavy, {made / beside:.2f} times vanilla 5M" in PAGE
    there = speed(SHORT, "block-85m_gqa_window-2-memory64_two_all") / (speed(SHORT, plain) * made / beside)
    grouped = float(ratios("speedup_without_windows")["decode_heavy", "2.794"]["ratio"])
    assert f"without windows at 2.794 would be {there:.2f} instead of {grouped:.2f}" in PAGE
    assert f"{there:.1f}" == "0.7"  # as README says


def test_what_attention_in_chunks_brought_to_prefill() -> None:
    parts = [
        (100 * ON_H100[model]["prefill_heavy"]["roofline_fraction"], 100 * of_the_limit(LONG, model, "prefill_heavy"))
        for model in ("vanilla-5m_gqa_window", "block-19m_gqa_window-2-memory64_two_all")
    ]
    (now, before), (block_now, block_before) = parts
    assert f"{now:.0f} % of the limit instead of {before:.0f} for vanilla 5M with windows" in PAGE
    assert f"{block_now:.0f} instead of {block_before:.0f} for block 19M" in PAGE


def speed_and_part(measured: dict[str, Any]) -> tuple[str, str]:
    return f"{measured['tokens_per_second']:,.0f}", f"{100 * measured['roofline_fraction']:.0f} %"


def test_what_the_ring_and_later_steps_brought() -> None:
    large, small, half, wide = (
        "block-85m_gqa_window-2-memory64_two_all",
        "block-19m_gqa_window-2-memory64_two_all",
        "vanilla-5m_gqa_window_half",
        "block-19m_gqa_window_512-2-memory64_two_all",
    )
    for told, model in (
        ("19M 2,253,308, then {} (70 %, {})", small),
        ("`window_half` 758,336, then {} (88 %, {})", half),
    ):
        assert told.format(*speed_and_part(ON_H100[model]["decode_heavy"])) in PAGE
    for told, model, setting in (
        ("`window_512` {0}, then {2} ({1}, {3})", wide, "decode_heavy"),
        ("and {0}, then {2} ({1}, {3})", wide, "prefill_heavy"),
        ("85M {2} decode-heavy ({3})", large, "decode_heavy"),
        ("732,088 tokens per second, then {0} (52 % of the limit, {1})", large, "decode_heavy"),
        ("and {2} prefill-heavy ({3}, before {0} and {1})", large, "prefill_heavy"),
    ):
        then, now = (speed_and_part(of[model][setting]) for of in (BEFORE, ON_H100))
        assert told.format(*then, *now) in PAGE
    for told, model in (
        ("19M", small),
        ("85M", large),
        ("memories at one layer", "block-19m_gqa_window_one-2-memory64_all"),
    ):
        assert "{} {} ({})".format(told, *speed_and_part(RINGS[model]["decode_heavy"])) in PAGE
    models = ("vanilla-5m_gqa", "vanilla-5m")
    made = [speed_and_part(of[model]["decode_heavy"])[0] for model in models for of in (BEFORE, ON_H100)]
    told = "423,405, {} and {}, vanilla 5M with all heads {} on the first and {} on the third"
    assert told.format(*made) in PAGE


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
    assert f"**At 2,048 tokens**: {per_e * log(10 / heads):.3f} nats for 10 times against all heads" in PAGE
    assert f"heads, {per_e * log(5 / grouped):.2f} nats for 5 times against grouped queries" in PAGE
    assert f"a factor of e per {per_e:.3f} nats" in PAGE
    limits = [limit(SHORT, model, "decode_heavy").tokens_per_second for model in (two, windows)]
    assert f"would be {limits[0] / limits[1]:.2f} times as fast as vanilla 5M with windows" in PAGE
    assert f"as measured it is {faster(two, windows)}" in PAGE


def test_every_model_saw_the_same_tokens() -> None:
    for study, model in EVALUATED:
        for trained in TRAINED[study][model].values():
            assert (f"{trained['tokens']:,}", f"{trained['steps']:,}") == ("100,007,936", "3,052")
            assert not trained["diverged"]
