"""A study that times one seed of each model: the others have its speeds, and it counts once."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.page import tables
from pipeline.analysis.rows import timing
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Row, points
from pipeline.analysis.statistics.findings import environments, find
from pipeline.base.errors import UserError
from pipeline.base.paths import result
from pipeline.results.failures import failure_noted
from pipeline.results.metrics import LOSS, setting_metric
from pipeline.results.records import BenchmarkResult, PretrainResult, read_result, write_result
from pipeline.study import Study, cells

RATE = setting_metric("decode_heavy", "tokens_per_second")
MODELS = ("vanilla-s", "vanilla-m", "block-s-4-base", "block-m-4-base")
UNTIMED = [f"{model}-{seed}" for model in MODELS for seed in (1, 2)]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Two sizes of vanilla and of block length 4 with three seeds, of which the first was timed."""
    monkeypatch.chdir(tmp_path)
    made = study_file(tmp_path, {"s": (4, 128), "m": (6, 192)}, [4], seeds=[0, 1, 2], few_figures=True)
    write_results(made)
    for name in UNTIMED:
        result("benchmark", name).unlink()
    return made


def by_name(study: Study) -> dict[str, Row]:
    return {row.name: row for row in load_rows(study)[0]}


def timed(study: Study, name: str) -> None:
    """Give the cell a benchmark of its own, twice as fast as the first seed's."""
    cell = next(cell for cell in cells(study) if cell.name == name)
    record = read_result(result("benchmark", f"{cell.model}-0"), BenchmarkResult, "benchmark")
    settings = {
        key: dataclasses.replace(each, tokens_per_second=2 * each.tokens_per_second)
        for key, each in record.settings.items()
    }
    own = read_result(result("pretrain", name), PretrainResult, "pretrain").cell
    write_result(result("benchmark", name), dataclasses.replace(record, cell=own, settings=settings))


def test_no_cell_is_missing_and_the_report_says_whose_speeds_are_others(study: Study) -> None:
    rows, missing = load_rows(study)
    assert [row.name for row in rows] == [cell.name for cell in cells(study)]
    assert missing == []
    found = find(rows)
    assert found.basis[0].startswith("Each model was trained with 3 seeds; the intervals take in seeds, test documents")
    told = f"Not timed, so these have the speeds of another seed of the same model: {', '.join(UNTIMED)}."
    assert told in found.notes
    assert told in tables.results_markdown(found).splitlines()
    assert [(stage, count) for stage, _, count in environments(rows)] == [
        ("pretrain", 12),
        ("evaluate", 12),
        ("benchmark", 4),
    ]


def test_losses_are_over_all_seeds_and_the_speed_is_the_timed_one_s(study: Study) -> None:
    model = points(load_rows(study)[0])[0]
    first = model.rows[0]
    assert LOSS.of(model) == pytest.approx(statistics.fmean(row.evaluate.loss for row in model.rows))
    assert [RATE.value(row) for row in model.rows] == [RATE.value(first)] * 3
    assert (RATE.of(model), RATE.spread(model)) == (RATE.value(first), None)
    assert timing.spread(model, RATE) == timing.spread(dataclasses.replace(model, rows=(first,)), RATE)
    assert {contrast.metric.key for contrast in find(load_rows(study)[0]).contrasts} == {"loss"}


def test_a_mean_over_timings_has_each_once(study: Study) -> None:
    timed(study, "vanilla-s-2")
    model = points(load_rows(study)[0])[0]
    first = RATE.value(model.rows[0])
    assert first is not None
    assert [RATE.value(row) for row in model.rows] == [first, first, 2 * first]
    assert RATE.of(model) == pytest.approx(1.5 * first)


def test_the_lowest_seed_that_was_timed_on_its_own_weights_lends(study: Study) -> None:
    timed(study, "vanilla-s-1")
    timed(study, "vanilla-s-2")
    result("benchmark", "vanilla-s-0").unlink()
    assert by_name(study)["vanilla-s-0"].benchmark.cell.name == "vanilla-s-1"
    path = result("benchmark", "vanilla-s-1")
    record = read_result(path, BenchmarkResult, "benchmark")
    write_result(path, dataclasses.replace(record, cell=dataclasses.replace(record.cell, fingerprint="old")))
    rows, missing = load_rows(study)
    assert {row.name: row for row in rows}["vanilla-s-0"].benchmark.cell.name == "vanilla-s-2"
    assert [each.cell for each in missing] == ["vanilla-s-1"]


def test_a_benchmark_that_failed_is_missing_though_the_cell_has_another_seeds_speeds(study: Study) -> None:
    with pytest.raises(UserError), failure_noted("benchmark", "vanilla-s-1"):
        raise UserError("out of luck")
    rows, missing = load_rows(study)
    assert [str(each) for each in missing] == ["vanilla-s-1, stage benchmark: it failed: out of luck"]
    assert [row.name for row in rows if row.borrows] == UNTIMED


def test_a_model_of_which_no_seed_was_timed_has_no_speed(study: Study) -> None:
    result("benchmark", "vanilla-s-0").unlink()
    rows, missing = load_rows(study)
    names = [f"vanilla-s-{seed}" for seed in (0, 1, 2)]
    assert [(each.cell, each.stage) for each in missing] == [(name, "benchmark") for name in names]
    assert [row.name for row in rows if not row.timed] == names


@pytest.mark.parametrize("stage", ["pretrain", "evaluate"])
def test_the_timed_seed_lends_its_speed_where_it_has_no_part_itself(study: Study, stage: str) -> None:
    """It diverged, or was not evaluated."""
    speed = RATE.value(by_name(study)["vanilla-s-0"])
    path = result(stage, "vanilla-s-0")
    if stage == "pretrain":
        write_result(path, dataclasses.replace(read_result(path, PretrainResult, stage), diverged=True))
    else:
        path.unlink()
    model = find(*load_rows(study)).points[0]
    assert [row.name for row in model.rows] == ["vanilla-s-1", "vanilla-s-2"]
    assert RATE.of(model) == speed
