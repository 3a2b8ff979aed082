"""The report's files: whole, deterministic, escaped, and right about what the results say."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import time
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.figures.speed import speed_figures
from pipeline.analysis.page.report import summary, write_report
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.statistics.findings import find
from pipeline.base.paths import result
from pipeline.results.metrics import LOSS
from pipeline.results.records import EvaluateResult, read_result, write_result
from pipeline.study import Study, cells
from pipeline.study.schema import Setting


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """One size of vanilla and of block lengths 2 and 4."""
    monkeypatch.chdir(tmp_path)
    made = study_file(tmp_path, {"s": (4, 128)}, [2, 4], needle=1)
    write_results(made)
    return made


@pytest.mark.slow
def test_two_reports_of_the_same_results_are_equal_to_the_byte(tiny: Study, tmp_path: Path) -> None:
    """One of them where an earlier study's report lay."""
    write_report(tiny, tmp_path / "one")
    for name in ("metrics/block-gone-2-base-0.json", "figures/gone.png"):
        (tmp_path / "two" / name).parent.mkdir(parents=True)
        (tmp_path / "two" / name).touch()
    write_report(tiny, tmp_path / "two")
    first, second = files(tmp_path / "one"), files(tmp_path / "two")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    drawn = {Path(name).stem for name in first if name.endswith(".svg")}
    fronts = {f"{kind}_{setting}" for kind in ("throughput", "memory") for setting in ("decode_heavy", "prefill_heavy")}
    assert drawn >= fronts | {
        "curves",
        "block_position",
        "context_512",
        "context_1024",
        "batch_decode_heavy",
        "fixed_batch_decode_heavy",
        "scores_decode_heavy",
        "ablation_block_length",
        "needle",
    }
    for name in drawn:
        assert first[f"figures/{name}.png"].startswith(b"\x89PNG")
        assert b"<svg" in first[f"figures/{name}.svg"]


def test_prompts_of_several_lengths_are_drawn_against_them(tiny: Study, tmp_path: Path) -> None:
    settings = tiny.benchmark.settings | {"long_prompt": Setting(prompt=1024, new_tokens=32)}
    write_results(dataclasses.replace(tiny, benchmark=dataclasses.replace(tiny.benchmark, settings=settings)))
    drawn = speed_figures(find(load_rows(tiny)[0]).points)
    every = (each for part in drawn for each in part)
    lengths = {drawing.name: figure for figure, drawing in every if drawing.name.startswith("length_")}
    assert list(lengths) == ["length_prompt_32"]
    lines = {str(line.get_label()): line for line in lengths["length_prompt_32"].axes[0].lines}
    assert lines.keys() == {"vanilla", "block L=2", "block L=4"}
    assert list(lines["vanilla"].get_xdata()) == [448, 1024]


def test_the_summary_names_the_front_and_the_speed_up(study: Study) -> None:
    findings = find(load_rows(study)[0])
    told = summary(study, findings)
    best = findings.quality[0].matched.best
    assert best is not None
    assert told["speedup"][findings.quality[0].setting]["block"]["vanilla"]["ratio"] == pytest.approx(best.value)
    assert f"{best.value:.3g} times as fast" in told["headline"]
    assert "vanilla-m-0" in told["pareto"]["decode_heavy"]
    assert "block-s-2-base-0" not in told["pareto"]["decode_heavy"]
    assert told["ordering"]["loss"] == {"compared": 6, "held": 6}


def test_fronts_that_do_not_overlap_give_no_speed_up(study: Study) -> None:
    for cell in cells(study):
        if cell.family == "block":
            shift_loss(cell.name, 3.0)
    told = summary(study, find(load_rows(study)[0]))
    assert told["speedup"] == {}
    losses = {point.name: LOSS.of(point) for point in find(load_rows(study)[0]).points}
    block = min(loss for name, loss in losses.items() if loss and name.startswith("block"))
    assert told["headline"] == (
        "No speed-up at equal loss can be stated with untuned recipes: the lowest loss of block transformers is "
        f"{block:.3f} nats per token, above the highest on the front of vanilla transformers, "
        f"{losses['vanilla-s']:.3f}."
    )
    assert any("No better than the unigram baseline" in note for note in told["notes"])


@pytest.mark.usefixtures("no_png")
def test_one_family_alone_is_reported_without_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 128)}, [], few_figures=True)
    write_results(study)
    findings = write_report(study, tmp_path / "report")
    assert findings.headline == "The study has only vanilla models that trained."


def test_measurements_on_different_hardware_are_called_incomparable(study: Study) -> None:
    rows = load_rows(study)[0]
    other = dataclasses.replace(rows[0].benchmark.environment, device="another device")
    changed = dataclasses.replace(rows[0], benchmark=dataclasses.replace(rows[0].benchmark, environment=other))
    notes = find([changed, *rows[1:]]).notes
    assert any("different hardware" in note and "another device" in note for note in notes)


def test_seeds_and_variants_give_intervals_for_each_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 64), "m": (4, 128)}, [2, 4], variants=["wide", "deep"], seeds=[0, 1])
    write_results(study)
    findings = find(load_rows(study)[0])
    assert len(findings.points) == 2 + 2 * 2 * 2
    best = findings.quality[0].matched.best
    assert best is not None
    assert best.low is not None
    assert best.high is not None
    assert best.low <= best.value <= best.high


def test_where_fronts_overlap_the_speed_up_is_drawn(hostile: Path) -> None:
    assert (hostile / "figures" / "speedup_vanilla.svg").exists()


def test_models_trained_elsewhere_and_uptrained_ones_are_families_of_their_own(hostile: Path) -> None:
    told = json.loads((hostile / "report.json").read_text())
    assert set(told["hypervolume"]["decode_heavy"]) == {
        "vanilla",
        "vanilla_transformers_generate",
        "block",
        "uptrained",
        "pretrained",
    }
    assert told["ordering"]["loss"]["compared"] == 4
    records = {row["cell"]: row for row in csv.DictReader(io.StringIO((hostile / "results.csv").read_text()))}
    assert records["block-vanilla-s-0-4-up-0"]["source"] == "vanilla-s-0"
    assert records["pythia"]["validation_loss"] == ""


def test_each_cell_has_a_metrics_file_of_its_own(hostile: Path) -> None:
    records = {row["cell"]: row for row in csv.DictReader(io.StringIO((hostile / "results.csv").read_text()))}
    for name, record in records.items():
        metrics = json.loads((hostile / "metrics" / f"{name}.json").read_text())
        assert metrics["loss"] == float(record["loss"])
        assert metrics["decode_heavy_tokens_per_second"] == float(record["decode_heavy_tokens_per_second"])


@pytest.mark.slow
def test_the_page_of_sixty_cells_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And prints how long the report takes."""
    monkeypatch.chdir(tmp_path)
    sizes = {name: (4 + 2 * at, 64 + 64 * at) for at, name in enumerate("abcd")}
    study = study_file(tmp_path, sizes, [1, 2, 4, 8, 16, 32, 64], variants=["base", "wide"], needle=1)
    write_results(study)
    began = time.perf_counter()
    write_report(study, tmp_path / "report")
    seconds = time.perf_counter() - began
    print(json.dumps({"cells": len(cells(study)), "seconds": round(seconds, 1)}))
    assert len(cells(study)) == 60
    assert (tmp_path / "report/index.html").stat().st_size < 1_500_000


def shift_loss(name: str, by: float) -> None:
    path = result("evaluate", name)
    record = read_result(path, EvaluateResult, "evaluate")
    nats = [
        value + by * count for value, count in zip(record.nats_by_document, record.targets_by_document, strict=True)
    ]
    write_result(path, dataclasses.replace(record, loss=record.loss + by, nats_by_document=nats))
