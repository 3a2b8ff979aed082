"""docs/results/changes.md against the records that it is from."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from pipeline.base.files import read_json
from tests.conftest import ROOT
from tests.result_pages import copies_by_offset

FOLDER = ROOT / "docs/results/changes"
CONTEXTS_FOLDER, MEMORIES = FOLDER.parent / "contexts", FOLDER.parent / "memory/results/evaluate"
CONTEXTS = tuple(f"block-19m-4-contexts{form}" for form in ("1", "4", "1_wide", "4_wide"))
PAGE = (ROOT / "docs/results/changes.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
STUDIES = " ".join((ROOT / "docs/studies.md").read_text(encoding="utf-8").split())
LOG = (ROOT / "docs/performance-log.md").read_text(encoding="utf-8")
SPEEDS = {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / "speed.json")}
SPEEDS_SINCE = {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / "speed_since.json")}
SPEEDS_CONVOLUTION = {
    record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / "speed_convolution.json")
}
SPEEDS_85M = {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / "speed_85m.json")}
MODELS = sorted({path.stem[:-2] for path in (FOLDER / "results/evaluate").iterdir()} | set(SPEEDS))


def evaluations(model: str, folder: Path = FOLDER) -> dict[str, Any]:
    paths = (folder / "results/evaluate").glob(f"{model}-[01].json")
    return {path.stem[-1]: read_json(path) for path in paths}


def plain(model: str) -> str | None:
    family, size, *rest = model.split("-")
    base = f"block-{size}-{rest[0]}-base" if family == "block" else model
    return None if base == model else base


def rows(model: str) -> list[list[str]]:
    found = re.findall(rf"^\| `{model}` \|(.*)\|$", PAGE, re.MULTILINE)
    return [[entry.strip() for entry in row.split("|")] for row in found]


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_its_losses_and_speeds(model: str) -> None:
    found, base = evaluations(model), plain(model)
    losses = {seed: scored["loss"] for seed, scored in found.items()}
    beside = {seed: scored["loss"] for seed, scored in evaluations(base).items()} if base else {}
    told = [f"{losses[seed]:.3f}" if seed in losses else "" for seed in "01"]
    told.append(f"{mean(losses.values()):.3f}" if len(losses) == 2 else "")
    told.append(" ".join(f"{losses[seed] - beside[seed]:+.3f}" for seed in sorted(losses) if seed in beside))
    for setting in ("decode_heavy", "prefill_heavy"):
        speed = SPEEDS[model][setting]["tokens_per_second"] if model in SPEEDS else None
        share = f" ({speed / SPEEDS[base][setting]['tokens_per_second']:.0%})" if speed and base else ""
        told.append(f"{speed:,.0f}{share}" if speed else "")
    assert rows(model)[0] == told


@pytest.mark.parametrize(
    ("model", "speeds"),
    [(model, speeds) for speeds in (SPEEDS_SINCE, SPEEDS_CONVOLUTION) for model in speeds],
    ids=[*SPEEDS_SINCE, *(f"{model}, later" for model in SPEEDS_CONVOLUTION)],
)
def test_a_model_has_its_speed_on_a_later_engine(model: str, speeds: dict[str, Any]) -> None:
    base = plain(model)
    told = []
    for setting in ("decode_heavy", "prefill_heavy"):
        speed, limit = (speeds[model][setting][key] for key in ("tokens_per_second", "roofline_fraction"))
        share = f"{speed / speeds[base][setting]['tokens_per_second']:.0%}" if base else ""
        told += [f"{speed:,.0f}", share, f"{limit:.0%}"]
    assert told in rows(model)


@pytest.mark.parametrize("model", SPEEDS_85M)
def test_the_performance_log_has_the_speed_of_every_form_at_85m(model: str) -> None:
    told = []
    for setting in ("decode_heavy", "prefill_heavy"):
        speed, limit = (SPEEDS_85M[model][setting][key] for key in ("tokens_per_second", "roofline_fraction"))
        told += [f"{speed:,.0f}", f"{limit:.0%}"]
    assert f"| `{model}` | {' | '.join(told)} |" in LOG


@pytest.mark.parametrize("model", [model for model in MODELS if evaluations(model)])
def test_a_model_has_its_copies_by_offset(model: str) -> None:
    family, _, *rest = model.split("-")
    length = int(rest[0]) if family == "block" else 1
    assert rows(model)[-1] == copies_by_offset(evaluations(model).values(), length)


def test_every_training_is_on_record_and_took_the_steps_that_the_page_tells() -> None:
    for path in (FOLDER / "results/evaluate").iterdir():
        trained = read_json(FOLDER / "results/pretrain" / path.name)
        assert (f"{trained['tokens']:,}", f"{trained['steps']:,}") == ("100,007,936", "3,052")
        assert not trained["diverged"]


def loss(model: str, folder: Path = FOLDER) -> float:
    return mean(scored["loss"] for scored in evaluations(model, folder).values())


def test_what_more_local_tokens_heads_and_overlap_bring() -> None:
    eight, four, both = (evaluations(f"block-19m-4-{form}") for form in ("local8_all", "local4_all", "local2_all"))
    less = [f"{four[seed]['loss'] - eight[seed]['loss']:.3f}" for seed in "01"]
    assert f"by {less[0]} and {less[1]} nats, two seeds" in WORDS
    assert f"{loss('block-19m-4-local4_all') - loss('block-19m-4-local8_all'):.2f} nats more (3.243)" in WORDS
    assert f"add {loss('block-19m-4-local4') - loss('block-19m-4-local4_all'):.3f} nats to four local tokens" in WORDS
    alone = evaluations("block-19m-4-local2")
    assert f"and {alone['0']['loss'] - both['0']['loss']:.3f} to two, by one seed" in WORDS
    assert f"{loss('block-19m-4-overlap'):.3f}" == f"{loss('block-19m-4-base'):.3f}"


def places(model: str) -> list[float]:
    scores = evaluations(model, CONTEXTS_FOLDER).values()
    return [mean(place) for place in zip(*(scored["loss_by_block_position"] for scored in scores), strict=True)]


@pytest.mark.parametrize("model", CONTEXTS)
def test_a_model_with_more_contexts_has_its_losses_and_training_flops(model: str) -> None:
    found = evaluations(model, CONTEXTS_FOLDER)
    trained = [read_json(CONTEXTS_FOLDER / f"results/pretrain/{model}-{seed}.json") for seed in "01"]
    told = [f"{found[seed]['loss']:.3f}" for seed in "01"] + [f"{loss(model, CONTEXTS_FOLDER):.3f}"]
    told.append(", ".join(f"{place:.3f}" for place in places(model)))
    told.append(f"{mean(record['training_flops'] for record in trained):.2e}")
    assert rows(model) == [told]
    for record in trained:
        assert (f"{record['tokens']:,}", f"{record['steps']:,}") == ("100,007,936", "3,052")
        assert not record["diverged"]


def test_what_more_contexts_and_width_bring() -> None:
    one, four, one_wide, four_wide = (loss(model, CONTEXTS_FOLDER) for model in CONTEXTS)
    assert f"by {four - one:.3f} nats, and by {four_wide - one_wide:.3f} with the wide token decoder" in WORDS
    assert f"{one - one_wide:.2f}" == f"{four - four_wide:.2f}"
    assert f"**A wide token decoder gains {one - one_wide:.2f} nats**, with one context and with four" in WORDS
    flops = [read_json(CONTEXTS_FOLDER / f"results/pretrain/{model}-0.json")["training_flops"] for model in CONTEXTS]
    assert f"for {flops[2] / flops[0]:.1f} and {flops[3] / flops[1]:.1f} times the training FLOPs" in WORDS
    assert f"**One prefix position less costs {one - loss('block-19m-4-base'):.3f}**" in WORDS


def test_where_in_a_block_more_contexts_lose() -> None:
    narrow, wide = (
        [after - before for before, after in zip(places(fewer), places(more), strict=True)]
        for fewer, more in (CONTEXTS[:2], CONTEXTS[2:])
    )
    assert all((lost.index(min(lost)), lost.index(max(lost))) == (0, 2) for lost in (narrow, wide))
    first, third = (f"({narrow[place]:.2f}, wide {wide[place]:.2f})" for place in (0, 2))
    assert f"least at the first {first} and most at the third {third}" in WORDS


def test_the_studies_page_counts_the_cells_that_were_run() -> None:
    changes, contexts = (
        len(list((folder / "results/evaluate").glob("*.json"))) for folder in (FOLDER, CONTEXTS_FOLDER)
    )
    memories = [path for path in MEMORIES.glob("*.json") if "_gqa" not in path.name]
    assert f"Of the cells of `changes_h100` {changes} were run" in STUDIES
    assert f"and {len(memories)} with [memories]" in STUDIES
    assert f"Of the 12 of `contexts_h100` {contexts} were" in STUDIES


def test_a_convolution_costs_loss() -> None:
    carried = [
        read_json(FOLDER.parent / f"measures/results/evaluate/block-19m-4-carried_all-{seed}.json") for seed in "01"
    ]
    without = {
        "local4": mean(scored["loss"] for scored in evaluations("block-19m-4-local4_all").values()),
        "carried": mean(scored["loss"] for scored in carried),
    }
    worse = {
        form: mean(scored["loss"] for scored in evaluations(f"block-19m-4-{form}_convolution_all").values()) - loss
        for form, loss in without.items()
    }
    assert f"by {worse['local4']:.3f} nats beside four local tokens and by {worse['carried']:.3f} beside" in PAGE
    assert "({:.3f} and {:.3f} without it)".format(*without.values()) in PAGE
