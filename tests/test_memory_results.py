"""docs/results/memory.md against the records that it is from."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from statistics import mean
from typing import Any

import pytest

from pipeline.base.files import read_json
from tests.conftest import ROOT
from tests.result_pages import copies_by_offset, scores

FOLDER = ROOT / "docs/results/memory"
TEXT = (ROOT / "docs/results/memory.md").read_text(encoding="utf-8")
PAGE = " ".join(TEXT.split())
LOG = " ".join((ROOT / "docs/performance-log.md").read_text(encoding="utf-8").split())
BEFORE = {
    "changes": ("block-19m-4-base", "block-19m-2-base", "block-19m-8-base", "block-19m-2-memory128"),
    "equal_loss": ("vanilla-5m_gqa",),
}
SETTINGS = ("decode_heavy", "prefill_heavy")


def now(name: str) -> str:
    """A cell's name: the first records call memories lookups."""
    return name.replace("lookup", "memory")


def of_models(stage: str) -> dict[str, dict[str, Any]]:
    """Records by model and seed, those of models without memories from the pages that they are of."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    folders = [(FOLDER, ("",)), *((FOLDER.parent / page, models) for page, models in BEFORE.items())]
    for folder, models in folders:
        for path in sorted((folder / "results" / stage).iterdir()):
            if path.stem.startswith(models):
                found[now(path.stem)[:-2]][path.stem[-1]] = read_json(path)
    return found


SCORED, TRAINED = of_models("evaluate"), of_models("pretrain")
SPEEDS = {
    now(record["cell"]["name"])[:-2]: record["settings"]
    for name in ("speed.json", "speed_grouped.json", "speed_302m.json")
    for record in read_json(FOLDER / name)
}
SPEEDS_85M = read_json(FOLDER / "speed_85m.json")
GROUPED = [model for model in SCORED if "_gqa-" in model or model.endswith("_gqa")]


def loss(model: str) -> float:
    return mean(scored["loss"] for scored in SCORED[model].values())


def rows(model: str) -> list[list[str]]:
    found = re.findall(rf"^\| `{model}` \|(.*)\|$", TEXT, re.MULTILINE)
    return [[entry.strip() for entry in row.split("|")] for row in found]


@pytest.mark.parametrize("model", sorted({*SCORED, *SPEEDS} - set(GROUPED)))
def test_a_model_has_its_losses_and_speeds(model: str) -> None:
    base = re.sub(r"-\w+$", "-base", model)
    losses, beside = ({seed: scored["loss"] for seed, scored in SCORED[name].items()} for name in (model, base))
    told = [f"{losses[seed]:.3f}" if seed in losses else "" for seed in "01"]
    told.append(f"{mean(losses.values()):.3f}" if len(losses) == 2 else "")
    told.append(" ".join(f"{losses[seed] - beside[seed]:+.3f}" for seed in losses) if model != base else "")
    for setting in SETTINGS:
        speed = SPEEDS[model][setting]["tokens_per_second"] if model in SPEEDS else None
        share = f" ({speed / SPEEDS[base][setting]['tokens_per_second']:.0%})" if speed and model != base else ""
        told.append(f"{speed:,.0f}{share}" if speed else "")
    assert rows(model)[0] == told


@pytest.mark.parametrize("model", GROUPED)
def test_a_grouped_model_has_its_loss_speeds_and_costs(model: str) -> None:
    told = [f"{mean(scored['loss'] for scored in SCORED[model].values()):.3f}"]
    for setting in SETTINGS:
        speed = SPEEDS[model][setting]
        told += [f"{speed['tokens_per_second']:,.0f}", f"{speed['roofline_fraction']:.0%}"]
    told.append(f"{SPEEDS[model]['decode_heavy']['kv_bytes_per_sample'] / 1e6:.1f}")
    told.append(f"{mean(trained['training_flops'] for trained in TRAINED[model].values()):.2e}")
    assert told in rows(model)


@pytest.mark.parametrize("model", GROUPED)
def test_a_grouped_model_has_its_scores(model: str) -> None:
    assert scores(SCORED[model].values()) in rows(model)


@pytest.mark.parametrize("model", [model for model in SCORED if "memory" in model])
def test_a_model_has_its_copies_by_offset(model: str) -> None:
    assert rows(model)[-1] == copies_by_offset(SCORED[model].values(), int(model.split("-")[2]))


def test_the_headline_is_the_reports() -> None:
    with (FOLDER / "speedup.csv").open(encoding="utf-8", newline="") as file:
        ratios = {row["setting"]: row for row in csv.DictReader(file)}
    decode, prefill = (f"{float(ratios[setting]['ratio']):.2f}" for setting in SETTINGS)
    assert f"twice as fast: {decode} times decode-heavy, {prefill} times prefill-heavy" in PAGE
    assert f"{decode} times decode-heavy and {prefill} prefill-heavy, and no interval" in PAGE
    assert not ratios["decode_heavy"]["low"]
    assert f"the ratio would be {float(ratios['decode_heavy']['roofline_ratio']):.2f}" in PAGE
    assert f"At a loss of {float(ratios['decode_heavy']['loss']):.3f} the report" in PAGE


def test_every_model_saw_the_same_tokens() -> None:
    for model in SCORED:
        for trained in TRAINED[model].values():
            assert (f"{trained['tokens']:,}", f"{trained['steps']:,}") == ("100,007,936", "3,052")
            assert not trained["diverged"]


def test_the_loss_at_each_place_of_a_block() -> None:
    places = SCORED["block-19m-4-memory128"]["0"]["loss_by_block_position"]
    assert "{:.3f}, {:.3f}, {:.3f} and {:.3f} nats at its four places".format(*places) in PAGE


def test_what_the_first_table_says() -> None:
    form, plain = "block-19m-4-memory128", "block-19m-4-base"
    less = mean(SCORED[plain][seed]["loss"] - SCORED[form][seed]["loss"] for seed in "01")
    decode, prefill = (
        SPEEDS[form][setting]["tokens_per_second"] / SPEEDS[plain][setting]["tokens_per_second"] for setting in SETTINGS
    )
    assert f"take {less:.2f} nats off at block length 4" in PAGE
    assert f"They keep {decode:.0%} of the plain".replace("%", " %") in PAGE
    assert f"decode-heavy and {prefill:.0%} prefill-heavy".replace("%", " %") in PAGE


def test_what_block_lengths_2_and_8_reach() -> None:
    less = loss("block-19m-2-base") - loss("block-19m-2-memory128")
    assert f"alone take {less:.2f} nats off**, to {loss('block-19m-2-memory128'):.3f}, a mean of two" in PAGE
    eight, four = ("block-19m-8-memory128_local2_all", "block-19m-4-base")
    faster = [
        SPEEDS[eight][setting]["tokens_per_second"] / SPEEDS[four][setting]["tokens_per_second"] for setting in SETTINGS
    ]
    assert f"{loss(eight):.3f} (one seed) against {loss(four):.3f}, at {faster[0]:.2f} times" in PAGE
    assert f"decode-heavy and {faster[1]:.2f} times prefill-heavy" in PAGE
    assert f"They take {loss('block-19m-8-base') - loss(eight):.2f} nats off." in PAGE
    vanilla = mean(
        read_json(FOLDER.parent / f"changes/results/evaluate/vanilla-5m-{seed}.json")["loss"] for seed in "01"
    )
    assert (
        f"{loss('block-19m-2-memory128_local2_all'):.3f} against {vanilla:.3f} with all heads, two seeds each" in PAGE
    )


def test_the_loss_at_each_place_of_a_block_of_8() -> None:
    places = SCORED["block-19m-8-memory128_local2_all"]["0"]["loss_by_block_position"]
    assert "{:.3f}, then {:.3f}, {:.3f}, {:.3f}, {:.3f}, {:.3f}, {:.3f} and {:.3f}.".format(*places) in PAGE
    plain = (scored["loss_by_block_position"] for scored in SCORED["block-19m-8-base"].values())
    first, *others = (mean(place) for place in zip(*plain, strict=True))
    assert f"has {first:.3f} there, and {min(others):.3f} to {max(others):.3f} at the others" in PAGE


def test_how_far_seeds_of_either_start_are_apart() -> None:
    apart = [
        f"{abs(SCORED[model]['0']['loss'] - SCORED[model]['1']['loss']):.3f}"
        for model in (
            "block-19m-4-memory128_all",
            "block-19m-2-memory128_local2_all",
            "block-19m-4-memory128",
            "block-19m-4-memory128_local2_all",
        )
    ]
    assert apart[0] == apart[1]
    assert f"{apart[0]} nats apart each, where two seeds of the old start are {apart[2]} and {apart[3]} apart" in PAGE


@pytest.mark.parametrize("record", SPEEDS_85M, ids=lambda record: record["cell"]["name"])
def test_the_performance_log_has_the_speeds_at_85m(record: dict[str, Any]) -> None:
    told = []
    for setting in SETTINGS:
        speed, limit = (record["settings"][setting][key] for key in ("tokens_per_second", "roofline_fraction"))
        told += [f"{speed:,.0f}", f"{limit:.0%}"]
    assert f"| `{record['cell']['name'][:-2]}` | {' | '.join(told)} |" in LOG


def test_what_the_performance_log_says_of_memories_at_85m() -> None:
    speeds = {record["cell"]["variant"]: record["settings"] for record in SPEEDS_85M}
    limits = [speeds[form]["decode_heavy"]["roofline_fraction"] for form in ("main", "memory128_all")]
    assert "meets it ({:.1%}), memories of 128 just do not ({:.1%})".format(*limits).replace("%", " %") in LOG
    kept = [
        speeds["memory128_all"][setting]["tokens_per_second"] / speeds["main"][setting]["tokens_per_second"]
        for setting in SETTINGS
    ]
    assert f"keeps {kept[0]:.0%} of the plain form's".replace("%", " %") in LOG
    assert f"decode-heavy, and {kept[1]:.0%} prefill-heavy".replace("%", " %") in LOG


def test_what_a_shift_of_the_block_transformers_loss_would_do() -> None:
    """Along the front through both of them, speeds on a logarithmic scale."""
    short, long = ("block-19m_gqa-2-memory64_all", "block-19m_gqa-4-memory64_all")
    apart = SCORED[long]["0"]["loss"] - SCORED[short]["0"]["loss"]
    faster = SPEEDS[long]["decode_heavy"]["tokens_per_second"] / SPEEDS[short]["decode_heavy"]["tokens_per_second"]
    assert f"would move the ratio by {100 * (faster ** (0.02 / apart) - 1):.0f} %" in PAGE


def test_what_it_cost_to_train() -> None:
    block, vanilla = (
        mean(trained["training_flops"] for trained in TRAINED[model].values())
        for model in ("block-19m_gqa-2-memory64_all", "vanilla-5m_gqa")
    )
    assert f"It took {block / vanilla:.1f} times the training FLOPs" in PAGE


def test_302m_with_blocks_of_4_against_smaller_models() -> None:
    model, short, small, beaten_by = (
        "block-302m_gqa-4-memory64_all",
        "block-19m_gqa-4-memory64_all",
        "block-19m_gqa-2-memory64_all",
        "block-85m_gqa_window-2-memory64_two_all",
    )
    windows = FOLDER.parent / "windows"
    better = read_json(windows / f"results/evaluate/{beaten_by}-0.json")["loss"]
    faster = {
        record["cell"]["name"][:-2]: record["settings"]["decode_heavy"]["tokens_per_second"]
        for record in read_json(windows / "speed.json")
    }
    speed = {name: SPEEDS[name]["decode_heavy"]["tokens_per_second"] for name in (model, small)}
    trained = TRAINED[model]["0"]
    flops = trained["training_flops"]
    less = loss(short) - loss(model)
    assert f"{loss(model):.3f} nats, {less:.3f} less than 19M with blocks of 4, for" in PAGE
    assert f"though its loss is {less:.3f} nats less" in PAGE
    assert f"for {flops / TRAINED[short]['0']['training_flops']:.1f} times the training FLOPs" in PAGE
    assert (
        f"85M has {loss(model) - better:.3f} nats less still, at {faster[beaten_by] / speed[model]:.1f} times" in PAGE
    )
    cost = read_json(windows / f"results/pretrain/{beaten_by}-0.json")["training_flops"] / flops
    assert f"for {cost:.2f} times the training FLOPs" in PAGE
    assert (
        f"of an H200, on which block 19M, with a later engine, was {faster[small] / speed[small]:.2f} times as fast"
        in PAGE
    )
    assert f"{trained['tokens'] / trained['non_embedding_parameters']:.2f} tokens per parameter" in PAGE
    vanilla = mean(
        read_json(FOLDER.parent / f"equal_loss/results/evaluate/vanilla-19m_gqa-{seed}.json")["loss"] for seed in "01"
    )
    timed = read_json(FOLDER.parent / "h100/results/benchmark/vanilla-19m_gqa-0.json")
    rate = timed["settings"]["decode_heavy"]["tokens_per_second"]
    assert (vanilla < loss(model), rate > speed[model]) == (True, True)
    assert f"[{vanilla:.3f} nats](equal_loss.md) and [{rate:,.0f} tokens per second](h100.md#every-cell)" in PAGE
