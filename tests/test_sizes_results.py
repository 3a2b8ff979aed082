"""docs/results/sizes.md against the records that it is from."""

from __future__ import annotations

import csv
import re
from functools import cache
from itertools import pairwise
from math import exp, log
from statistics import mean
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pipeline.analysis.rows.points import Row
from pipeline.analysis.statistics import fits
from pipeline.analysis.statistics.fits import Coefficient, Power, PowerLaw, coefficient, power, power_law
from pipeline.analysis.statistics.training import end_slope
from pipeline.base.files import read_json
from pipeline.results.curve import read_curve
from pipeline.study import load_study
from tests.conftest import ROOT
from tests.result_pages import copies_by_offset, scores

FOLDER = ROOT / "docs/results/sizes"
TEXT = (ROOT / "docs/results/sizes.md").read_text(encoding="utf-8")
PAGE = " ".join(TEXT.split())
SETTINGS = ("decode_heavy", "prefill_heavy")
SIZES = ("5m", "10m", "19m", "39m", "85m")
MODELS = {
    "vanilla": [f"vanilla-{size}" for size in SIZES],
    "block": [f"block-{size}-2-memory64_all" for size in SIZES],
}
EVERY = [model for models in MODELS.values() for model in models]
REACHED = MODELS["block"][2:]  # the block transformers at or below vanilla 5M's loss
BEFORE = {
    "vanilla-5m": "equal_loss/results/evaluate",
    "vanilla-19m": "equal_loss/results/evaluate",
    "block-19m-2-memory64_all": "windows/results/evaluate",
}
ONCE = {model: model.replace("5m", "5m_gqa").replace("19m", "19m_gqa") for model in BEFORE}
SCORED, TRAINED = (
    {path.stem[:-2]: read_json(path) for path in sorted((FOLDER / f"results/{stage}").iterdir())}
    for stage in ("evaluate", "pretrain")
)
SPEEDS = {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / "speed.json")}
REPORT = read_json(FOLDER / "report.json")

with (FOLDER / "speedup.csv").open(encoding="utf-8", newline="") as file:
    RATIOS = {(row["setting"], row["at_the_loss_of"]): row for row in csv.DictReader(file)}
ANCHORS = [at for setting, at in RATIOS if setting == SETTINGS[0]]  # from the lowest loss


def loss(model: str) -> float:
    return float(SCORED[model]["loss"])


def parameters(model: str) -> float:
    return float(TRAINED[model]["non_embedding_parameters"])


def speed(model: str, setting: str = "decode_heavy") -> float:
    return float(SPEEDS[model][setting]["tokens_per_second"])


def section(heading: str) -> str:
    return TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]


def table(heading: str, columns: int) -> list[list[str]]:
    """The rows of that section's table of so many columns, without its head."""
    found = [
        [cell.strip() for cell in line[1:-1].split("|")] for line in section(heading).splitlines() if line[:1] == "|"
    ]
    return [row for row in found if len(row) == columns and not row[0].startswith("---")][1:]


def between(at: float, wanted: list[float], *models: str) -> float:
    """The wanted number, linear in its logarithm, where the line between two models has that loss."""
    share = (at - loss(models[0])) / (loss(models[1]) - loss(models[0]))
    return exp((1 - share) * log(wanted[0]) + share * log(wanted[1]))


def neighbours(at: float, family: str = "vanilla") -> tuple[str, str]:
    """The two models of the family between whose losses that loss lies."""
    (found,) = (pair for pair in pairwise(MODELS[family]) if loss(pair[1]) < at <= loss(pair[0]))
    return found


@cache
def law(family: str, without: str = "") -> PowerLaw:
    models = [model for model in MODELS[family] if model.split("-")[1] != without]
    return power_law([parameters(model) for model in models], [loss(model) for model in models])


@cache
def speed_law(family: str, setting: str, without: str = "") -> Power:
    models = [model for model in MODELS[family] if model.split("-")[1] != without]
    return power([parameters(model) for model in models], [speed(model, setting) for model in models])


def predicted_ratio(at: float, setting: str, without: str = "") -> float:
    """What the laws say of the speed-up at that loss, by the fits alone."""
    block, vanilla = (rate_at(family, at, setting, without) for family in ("block", "vanilla"))
    return block / vanilla


def rate_at(family: str, at: float, setting: str, without: str) -> float:
    of_loss = law(family, without)
    needed = of_loss.reached(np.full(len(of_loss.replicates), at))[0]
    return float(speed_law(family, setting, without).at(needed)[0])


def interval(found: dict[str, Any], form: str = ".2f") -> str:
    """1.17 (1.12 to 1.22); without an interval where the report has none."""
    bounds = (
        f" ({float(found['low']):{form}} to {float(found['high']):{form}})"
        if found.get("low") not in ("", None)
        else ""
    )
    return f"{float(found['value'] if 'value' in found else found['ratio']):{form}}{bounds}"


def fitted(found: Coefficient, form: str) -> str:
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def count(value: float | None) -> str:
    """74M, 2.2B; ∞ where the law never falls so far."""
    if value is None:
        return "∞"
    return f"{value / 1e9:.1f}B" if value >= 1e9 else f"{value / 1e6:.0f}M"


def model_row(model: str) -> list[str]:
    told = [f"`{model}`", f"{loss(model):.3f}", f"{parameters(model) / 1e6:.1f}M"]
    for setting in SETTINGS:
        told += [f"{speed(model, setting):,.0f}", f"{SPEEDS[model][setting]['roofline_fraction']:.0%}"]
    memory = SPEEDS[model]["decode_heavy"]["bytes_per_sample"] / 1e6
    return [*told, f"{memory:.1f}", f"{TRAINED[model]['training_flops']:.2e}"]


def score_row(model: str) -> list[str]:
    scored = [SCORED[model]]
    return [f"`{model}`", *scores(scored), *copies_by_offset(scored, 2 if model.startswith("block") else 1)]


def ratio_row(at: str) -> list[str]:
    found = [RATIOS[setting, at] for setting in SETTINGS]
    limits = [f"{float(row['roofline_ratio']):.2f}" for row in found]
    by_law = [f"{predicted_ratio(loss(at), setting):.2f}" for setting in SETTINGS]
    told = [entry for column in zip(map(interval, found), limits, by_law, strict=True) for entry in column]
    return [f"`{at}`", f"{loss(at):.3f}", *told]


def law_row(family: str) -> list[str]:
    found = law(family)
    misses = [f"{loss(model) - found.at(parameters(model))[0]:+.3f}" for model in MODELS[family]]
    (tested,) = (test for test in REPORT["out_of_sample"] if test["series"].startswith(family))
    left_out = f"{tested['predicted']:.3f} ({tested['low']:.3f} to {tested['high']:.3f})"
    told = [fitted(found.offset, ".2f"), fitted(found.scale, ".3g"), fitted(found.exponent, ".3f")]
    return [family, *told, ", ".join(misses), left_out, f"{tested['measured']:.3f}"]


def speed_law_row(family: str, setting: str) -> list[str]:
    found = speed_law(family, setting)
    over = [f"{speed(model, setting) / found.at(parameters(model))[0]:.2f}" for model in MODELS[family]]
    return [family, setting.replace("_", "-"), fitted(coefficient(found.replicates[:, 0]), ".2f"), ", ".join(over)]


def predicted_row(at: int) -> list[str]:
    """Of the vanilla model whose parameters are the largest one's times 2 to the power ``at``."""
    decode, prefill = (
        [row for row in REPORT["predicted_speedup"] if row["setting"] == setting][at] for setting in SETTINGS
    )
    needed = decode["needed"]
    parts = f"{count(needed['value'])} ({count(needed['low'])} to {count(needed['high'])})"
    told = [interval(each["ratio"]) for each in (decode, prefill)]
    return [count(decode["parameters"]), interval(decode["loss"]), parts, *told]


def cost_row(model: str) -> list[str]:
    at = loss(model)
    pair = neighbours(at)
    vanilla = between(at, [parameters(other) for other in pair], *pair)
    flops = REPORT["training_flops"][model]["vanilla_grouped-query"]
    return [f"`{model}`", f"{at:.3f}", f"{parameters(model) / vanilla:.1f}", interval(flops)]


def losses_before(model: str) -> list[float]:
    folder = BEFORE[model]
    paths = sorted((FOLDER.parent / folder).glob(f"{ONCE[model]}-?.json"))
    return [float(read_json(path)["loss"]) for path in paths]


def before_row(model: str) -> list[str]:
    found = losses_before(model)
    by_seed = ", ".join(f"{each:.3f}" for each in found)
    return [f"`{model}`", f"{loss(model):.3f}", f"`{ONCE[model]}`", by_seed, f"{mean(found):.3f}"]


TABLES = {
    ("The ten models", 9): [model_row(model) for model in EVERY],
    ("Accuracy and copies", 8): [score_row(model) for model in EVERY],
    ("At losses that both reach", 8): [ratio_row(at) for at in ANCHORS],
    ("The laws", 7): [law_row(family) for family in MODELS],
    ("The laws", 4): [speed_law_row(family, setting) for setting in SETTINGS for family in MODELS],
    ("What the laws predict", 5): [predicted_row(at) for at in range(3)],
    ("Parameters and training FLOPs at equal loss", 4): [cost_row(model) for model in REACHED],
    ("Trained before", 5): [before_row(model) for model in BEFORE],
}


@pytest.mark.parametrize(("heading", "columns"), TABLES)
def test_a_table_is_the_records(heading: str, columns: int) -> None:
    assert table(heading, columns) == TABLES[heading, columns]


def test_the_lead_is_the_reports() -> None:
    lead = PAGE.split("## ")[0]
    highest, lowest = ANCHORS[-1], ANCHORS[0]
    assert (highest, lowest) == ("vanilla-5m", "block-85m-2-memory64_all")
    assert f"reach losses from {loss(highest):.3f} down to {loss(lowest):.3f} nats" in lead
    ends = [[f"{float(RATIOS[setting, at]['ratio']):.2f}" for at in (highest, lowest)] for setting in SETTINGS]
    assert "goes from {} to {} decode-heavy and from {} to {} prefill-heavy".format(*ends[0], *ends[1]) in lead
    decode, prefill = ([row for row in REPORT["predicted_speedup"] if row["setting"] == at] for at in SETTINGS)
    assert "predict {}, {} and {} times decode-heavy".format(*values(decode, "ratio")) in lead
    assert "of {}, {} and {} parameters".format(*(count(row["parameters"]) for row in decode)) in lead
    assert "({}, {} and {} nats)".format(*values(decode, "loss")) in lead
    assert "and prefill-heavy {}, {} and {}.".format(*values(prefill, "ratio")) in lead
    assert {row["ratio"]["low"] for row in decode + prefill} == {0.0}
    highs = [row["ratio"]["high"] for row in decode]
    assert "begin at 0 and end at {:.2f}, {:.2f} and {:.2f} decode-heavy".format(*highs) in lead
    assert "no interval reaches that" in lead
    assert max(row["ratio"]["high"] for row in decode + prefill) < 10


def values(found: list[dict[str, Any]], key: str) -> list[str]:
    return [f"{row[key]['value']:.2f}" for row in found]


def test_the_report_is_of_these_records() -> None:
    """Its predictions are again those of the laws, fitted here, and its ratios are of these losses."""
    for row in REPORT["predicted_speedup"]:
        at = float(law("vanilla").at(row["parameters"])[0])
        assert row["loss"]["value"] == pytest.approx(at)
        assert row["ratio"]["value"] == pytest.approx(predicted_ratio(at, row["setting"]), rel=1e-3)
    assert all(float(row["loss"]) == pytest.approx(loss(at)) for (_, at), row in RATIOS.items())
    at = RATIOS["decode_heavy", "block-85m-2-memory64_all"]
    pair = neighbours(loss(at["at_the_loss_of"]))
    vanilla = between(loss(at["at_the_loss_of"]), [speed(model) for model in pair], *pair)
    assert float(at["ratio"]) == pytest.approx(speed("block-85m-2-memory64_all") / vanilla)


def test_gaps_at_equal_size() -> None:
    pairs = list(zip(MODELS["block"], MODELS["vanilla"], strict=True))
    gaps = [loss(block) - loss(vanilla) for block, vanilla in pairs]
    assert f"{min(gaps):.3f} to {max(gaps):.3f} nats behind" in PAGE
    faster = [speed(block) / speed(vanilla) for block, vanilla in pairs]
    assert f"They are {min(faster):.2f} to {max(faster):.2f} times as fast decode-heavy" in PAGE


def test_the_limits_at_the_lowest_loss() -> None:
    block = "block-85m-2-memory64_all"
    parts = [
        f"{100 * SPEEDS[model]['decode_heavy']['roofline_fraction']:.0f}"
        for model in (block, *reversed(neighbours(loss(block))))
    ]
    ratio = float(RATIOS["decode_heavy", block]["ratio"])
    assert ratio == pytest.approx(1, abs=0.03)
    assert f"Decode-heavy both are level at {loss(block):.3f}: {ratio:.2f} is nearer to 1" in PAGE
    assert f"meets it at {loss(block):.3f} nats, between vanilla 10M and 19M" in PAGE
    assert (
        f"block 85M would be {float(RATIOS['decode_heavy', block]['roofline_ratio']):.2f} times as fast at 2.776"
        in PAGE
    )
    assert "It runs at {} % of its limit, the vanilla models beside it at {} and {} %".format(*parts) in PAGE


def test_parameters_and_flops_at_equal_loss() -> None:
    factors = []
    for model in MODELS["vanilla"][:2]:
        pair = neighbours(loss(model), "block")
        factors.append(between(loss(model), [parameters(other) for other in pair], *pair) / parameters(model))
    assert "needs {:.1f} times the parameters of vanilla 5M for its loss, and {:.1f} times".format(*factors) in PAGE
    flops = [REPORT["training_flops"][model]["vanilla_grouped-query"]["ratio"] for model in REACHED]
    assert flops == sorted(flops)
    assert f"costs {flops[0]:.2f} to {flops[-1]:.2f} times the FLOPs" in PAGE
    assert min(loss(model) for model in MODELS["block"][:2]) > max(loss(model) for model in MODELS["vanilla"])


def test_how_well_the_laws_fit() -> None:
    misses = [[loss(model) - law(family).at(parameters(model))[0] for model in MODELS[family]] for family in MODELS]
    assert [f"{found[1]:.3f}" for found in misses] == ["-0.010", "-0.010"]
    assert max(abs(miss) for found in misses for miss in (found[0], *found[2:])) <= 0.005
    assert "The laws fit their points within 0.010 nats" in PAGE
    assert "the laws miss by up to 0.010" in PAGE
    assert "10M lies 0.010 below, the others at most 0.005 off" in PAGE
    tests = REPORT["out_of_sample"]
    missed = [-test["miss"] for test in tests]
    assert "by {:.3f} and {:.3f} nats, where".format(*missed) in PAGE
    steps = [test["before"] - test["measured"] for test in tests]
    assert "the step from 39M brought {:.3f} and {:.3f}".format(*steps) in PAGE
    widths = {f"{test['high'] - test['low']:.2f}" for test in tests}
    assert "being {} nats wide".format(" and ".join(sorted(widths))) in PAGE
    assert all(test["low"] < test["measured"] < test["high"] for test in tests)
    assert max(law(family).offset.low for family in MODELS) < 1e-3
    assert "begin at 0 and end at {:.2f} and {:.2f}".format(*(law(family).offset.high for family in MODELS)) in PAGE


def test_speed_follows_the_heads_of_keys() -> None:
    sizes = load_study(ROOT / "studies/sizes_h100.yaml").sizes
    heads = [(sizes[size].layers, sizes[size].kv_heads) for size in SIZES]
    assert heads[:3] == [(6, 1), (6, 2), (6, 2)]
    products = [
        (layers or 0) * (keys or 0) * speed(model) / 1e6
        for (layers, keys), model in zip(heads, MODELS["vanilla"], strict=True)
    ]
    assert f"are {min(products):.1f} to {max(products):.1f} million at all five sizes" in PAGE
    ends = [f"{parameters(model) / 1e6:.1f}M" for model in (MODELS["vanilla"][0], MODELS["vanilla"][-1])]
    assert "which have {} to {} parameters".format(*ends) in PAGE
    small, middle, large = MODELS["vanilla"][:3]
    slower = f"{100 * (1 - speed(large) / speed(middle)):.0f} % slower"
    assert f"only {slower}, with {parameters(large) / parameters(middle):.2f} times the parameters" in PAGE
    assert f"is {speed(small) / speed(middle):.2f} times as fast as 10M" in PAGE
    block = [sizes[size].block_decoder for size in SIZES]
    assert [decoder and decoder.kv_heads for decoder in block] == [1, 1, 1, 1, 2]
    before, last = MODELS["block"][-2:]
    memory = [SPEEDS[model]["decode_heavy"]["bytes_per_sample"] for model in (last, before)]
    told = f"is {memory[0] / memory[1]:.1f} times that of 39M, and 39M is {speed(before) / speed(last):.2f} times"
    assert told in PAGE
    ratios = [float(RATIOS["decode_heavy", at]["ratio"]) for at in (before, last)]
    fall = f"{ratios[0]:.2f} to {ratios[1]:.2f} between {loss(before):.3f} and {loss(last):.3f} nats"
    assert f"the ratio fall from {fall}" in PAGE


def test_how_well_the_laws_of_speed_fit() -> None:
    over = [
        speed(model, setting) / speed_law(family, setting).at(parameters(model))[0] - 1
        for setting in SETTINGS
        for family in MODELS
        for model in MODELS[family]
    ]
    assert f"by {100 * min(over):.0f} to {100 * max(over):+.0f} %" in PAGE
    at = "block-85m-2-memory64_all"
    decode, prefill = ((predicted_ratio(loss(at), s), float(RATIOS[s, at]["ratio"])) for s in SETTINGS)
    told = (
        f"At {loss(at):.3f} "
        + "they say {:.2f} decode-heavy, where {:.2f} was interpolated, and prefill-heavy {:.2f} instead of {:.2f}"
    )
    assert told.format(*decode, *prefill) in PAGE


def test_what_larger_models_would_have() -> None:
    told = []
    for family in MODELS:
        at = 4 * law(family).high
        found = law(family).predict(at)
        told += [f"{found.value:.3f} nats ({count(at)} parameters; {found.low:.3f} to {found.high:.3f})"]
    vanilla, block = told
    assert f"a vanilla transformer would have {vanilla} and a block transformer" in PAGE
    assert f"a block transformer {block.replace(' nats', '').replace(' parameters', '')}" in PAGE


def test_where_the_predicted_ratio_passes_1() -> None:
    for setting, at in zip(
        SETTINGS, re.search(r"passes 1 at (\S+) nats .* at (\S+) prefill", PAGE).groups(), strict=True
    ):  # type: ignore[union-attr]
        assert predicted_ratio(float(at) + 0.002, setting) > 1 > predicted_ratio(float(at) - 0.002, setting)


def test_the_predictions_without_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "REPLICATES", 1)  # no interval is told of these
    ratios: dict[float, list[float]] = {1: [], 4: []}
    for without in ("10m", "19m", "39m"):
        for times, found in ratios.items():
            at = float(law("vanilla", without).at(times * law("vanilla").high)[0])
            found.append(predicted_ratio(at, "decode_heavy", without))
    assert all(large < same for same, large in zip(ratios[1], ratios[4], strict=True))
    ends = [f"{pick(found):.2f}" for found in ratios.values() for pick in (min, max)]
    assert "say {} to {} decode-heavy at the loss of 74M, and {} to {} at that of 298M".format(*ends) in PAGE


def test_accuracy_and_copies() -> None:
    block, small, large = "block-85m-2-memory64_all", "vanilla-5m", "vanilla-19m"
    lambada = {model: score_row(model)[2] for model in EVERY}
    told = (
        f"has {lambada[block]} bits per byte on LAMBADA, where vanilla 19M, at {loss(large):.3f}, has {lambada[large]}"
    )
    assert f"at {loss(block):.3f} nats, {told} and vanilla 5M, at {loss(small):.3f}, has {lambada[small]}" in PAGE
    first = MODELS["block"][1]
    gain = [
        each["value"]
        for model in (first, block)
        for each in SCORED[model]["tasks"]
        if (each["task"], each["metric"]) == ("lambada_openai", "gold_bits_per_byte")
    ]
    assert f"from 10M to 85M they gain {gain[0] - gain[1]:.2f} bits per byte, and no accuracy" in PAGE
    assert score_row(block)[3] <= score_row(first)[3]
    copies = score_row(block)[-1].replace(", ", " and ")
    assert f"costs block 85M {copies} nats, vanilla 19M {score_row(large)[-1]}" in PAGE


def test_models_trained_before() -> None:
    assert (
        f"Seed 0 differs from itself by at most {max(abs(losses_before(m)[0] - loss(m)) for m in BEFORE):.3f}" in PAGE
    )
    steps = [loss(before) - loss(after) for models in MODELS.values() for before, after in pairwise(models)]
    assert f"Neighbouring sizes of a family are at least {min(steps):.3f} apart" in PAGE
    means = max(abs(mean(losses_before(model)) - loss(model)) for model in BEFORE)
    assert f"the means by at most {means:.3f}" in PAGE
    assert f"models differ by [up to {means:.3f} nats]" in PAGE


def test_training_was_equal_and_not_at_its_end() -> None:
    slopes: dict[str, list[tuple[float, float]]] = {family: [] for family in MODELS}
    for family, model in ((model.split("-")[0], model) for model in EVERY):
        trained = TRAINED[model]
        assert (f"{trained['tokens']:,}", f"{trained['steps']:,}") == ("100,007,936", "3,052")
        assert not trained["diverged"]
        curve = read_curve(FOLDER / f"curves/{model}-0.csv")
        row = SimpleNamespace(curve=curve, pretrain=SimpleNamespace(steps=trained["steps"]), recipe=None)
        slopes[family].append(end_slope(cast(Row, row)) or (0.0, 0.0))
    ends = [f"{pick(found)[0]:.2f}" for found in slopes.values() for pick in (min, max)]
    told = "by {} to {} nats per doubling of tokens for vanilla transformers and by {} to {} for block transformers"
    assert told.format(*ends) in PAGE
    errors = sorted({f"{error:.2f}" for found in slopes.values() for _, error in found})
    assert "(standard error {} or {} each)".format(*errors) in PAGE
    tokens = [TRAINED[model]["tokens"] / parameters(model) for model in (MODELS["vanilla"][0], MODELS["vanilla"][-1])]
    assert "are {:.0f} per parameter for vanilla 5M and {:.1f} for 85M".format(*tokens) in PAGE


def test_where_it_was_measured() -> None:
    found = {(read["environment"]["device"], read["environment"]["revision"][:7]) for read in SCORED.values()}
    timed = {
        (read["environment"]["device"], read["environment"]["revision"][:7])
        for read in read_json(FOLDER / "speed.json")
    }
    assert (found, timed) == ({("NVIDIA H200", "429fd8e")}, {("NVIDIA H200", "93c94e3")})
    assert "Revision 429fd8e" in PAGE
    trained = TRAINED[EVERY[0]]
    assert (
        f"{trained['tokens']:,} tokens in {trained['steps']:,} steps of {trained['tokens'] // trained['steps']:,}:"
        in PAGE
    )
    study = load_study(ROOT / "studies/sizes_h100.yaml")
    tuned = study.recipes["vanilla-5m"]
    of_most = (study.pretrain.matrix_learning_rate, study.pretrain.learning_rate)
    at_5m = (tuned.matrix_learning_rate, tuned.learning_rate)
    assert "Muon at {} and {}; {} and {} at 5M".format(*of_most, *at_5m) in PAGE
    assert "revision 93c94e3" in PAGE
