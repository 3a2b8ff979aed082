"""The report's files: whole, deterministic, escaped, and right about what the results say."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis import write_report
from pipeline.paths import result
from pipeline.results import EvaluateResult, PretrainResult, read_result, write_result
from pipeline.study import Study, cells


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_reports_of_the_same_results_are_equal_to_the_byte(study: Study, tmp_path: Path) -> None:
    write_report(study, tmp_path / "one")
    write_report(study, tmp_path / "two")
    first, second = files(tmp_path / "one"), files(tmp_path / "two")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    for name in ("index.html", "results.csv", "results.md", "pareto.csv", "curves.csv", "report.json"):
        assert first[name]
    for setting in ("decode_heavy", "prefill_heavy"):
        for kind in ("throughput", "memory"):
            assert first[f"figures/{kind}_{setting}.png"].startswith(b"\x89PNG")
            assert b"<svg" in first[f"figures/{kind}_{setting}.svg"]


def test_what_an_earlier_study_left_is_removed(study: Study, tmp_path: Path) -> None:
    write_report(study, tmp_path / "report")
    grid = dataclasses.replace(study.grid, block=dataclasses.replace(study.grid.block, block_length=[2]))
    smaller = dataclasses.replace(study, grid=grid)
    write_report(smaller, tmp_path / "report")
    left = {path.stem for path in (tmp_path / "report" / "metrics").iterdir()}
    assert left == {cell.name for cell in cells(smaller)}


def test_report_json_names_the_front_and_the_speed_up(study: Study, tmp_path: Path) -> None:
    findings = write_report(study, tmp_path / "report")
    summary = json.loads((tmp_path / "report" / "report.json").read_text())
    best = findings.quality[0].matched.best
    assert best is not None
    assert summary["speedup"]["decode_heavy"]["ratio"] == pytest.approx(best.value)
    assert f"{best.value:.3g} times as fast" in summary["headline"]
    assert "vanilla-m-0" in summary["pareto"]["decode_heavy"]
    assert "block-s-2-base-0" not in summary["pareto"]["decode_heavy"]
    assert summary["ordering"]["loss"] == {"compared": 6, "held": 6}


def test_fronts_that_do_not_overlap_give_no_speed_up(study: Study, tmp_path: Path) -> None:
    for cell in cells(study):
        if cell.family == "block":
            shift_loss(cell.name, 3.0)
    write_report(study, tmp_path / "report")
    summary = json.loads((tmp_path / "report" / "report.json").read_text())
    assert summary["speedup"] == {}
    assert summary["headline"].startswith("No speed-up at equal quality can be stated: no value is reached by both")
    assert any("No better than the unigram baseline" in note for note in summary["notes"])


def test_a_diverged_cell_is_in_the_table_and_on_no_front(study: Study, tmp_path: Path) -> None:
    path = result("pretrain", "vanilla-m-0")
    write_result(path, dataclasses.replace(read_result(path, PretrainResult, "pretrain"), diverged=True))
    write_report(study, tmp_path / "report")
    summary = json.loads((tmp_path / "report" / "report.json").read_text())
    assert all("vanilla-m-0" not in names for names in summary["pareto"].values())
    assert any("vanilla-m-0" in note and "diverged" in note for note in summary["notes"])
    assert "vanilla-m-0" in (tmp_path / "report" / "results.csv").read_text()


def test_one_family_alone_is_reported_without_a_comparison(study: Study, tmp_path: Path) -> None:
    grid = dataclasses.replace(study.grid, block=dataclasses.replace(study.grid.block, size=[]))
    findings = write_report(dataclasses.replace(study, grid=grid), tmp_path / "report")
    assert findings.headline == "The study has only vanilla models that trained."


class Outline(html.parser.HTMLParser):
    """What the page refers to, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag == "img":
            self.images.append(attributes)


def test_the_page_needs_no_network_and_describes_its_images(study: Study, tmp_path: Path) -> None:
    write_report(study, tmp_path / "report")
    page = Outline((tmp_path / "report" / "index.html").read_text())
    assert [link for link in page.links if not link.startswith(("#", "data:"))] == []
    assert len(page.images) == len(list((tmp_path / "report" / "figures").glob("*.svg")))
    assert all(len(image["alt"] or "") > 20 for image in page.images)


def test_text_from_results_is_escaped(study: Study, tmp_path: Path) -> None:
    hostile = "</script><script>alert('x')</script><b>"
    for cell in cells(study):
        path = result("evaluate", cell.name)
        record = read_result(path, EvaluateResult, "evaluate")
        tasks = [dataclasses.replace(task, task=hostile) for task in record.tasks]
        environment = dataclasses.replace(record.environment, device=hostile)
        write_result(path, dataclasses.replace(record, tasks=tasks, environment=environment))
    write_report(study, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert hostile not in text
    assert Outline(text).tags.count("script") == 2


def test_the_stage_prints_the_table_and_where_to_look(study: Study, tmp_path: Path, root: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "stages.report"], env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "block-m-8-base-0" in ran.stdout
    assert "report/index.html" in ran.stdout
    assert (tmp_path / "report" / "index.html").exists()


def test_the_stage_names_a_missing_result_in_one_line(study: Study, root: Path) -> None:
    result("evaluate", "vanilla-s-0").unlink()
    ran = subprocess.run(
        [sys.executable, "-m", "stages.report"], env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "error: results/evaluate/vanilla-s-0.json: no such result; run `dvc repro` (stage evaluate) first"
    ]


def test_the_report_never_imports_torch(study: Study, root: Path) -> None:
    code = "import sys, stages.report; stages.report.main(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(root)}).returncode == 0


def test_variants_and_seeds_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 64), "m": (4, 128)}, [2, 4], variants=["wide", "deep"], seeds=[0, 1])
    write_results(study)
    findings = write_report(study, tmp_path / "report")
    assert len(findings.points) == 2 + 2 * 2 * 2
    best = findings.quality[0].matched.best
    assert best is not None
    assert best.low is not None
    assert best.high is not None
    assert best.low <= best.value <= best.high


def test_models_trained_elsewhere_and_uptrained_ones_are_families_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 64), "m": (4, 128)}, [2, 4], others=True)
    write_results(study)
    findings = write_report(study, tmp_path / "report")
    families = {point.name: point.family for point in findings.points}
    assert families["pythia"] == "pretrained"
    assert families["block-vanilla-s-0-4-up"] == "uptrained"
    compared = {(each.family, each.setting) for each in findings.quality}
    assert compared == {(f, s) for f in ("block", "uptrained") for s in ("decode_heavy", "prefill_heavy")}
    assert all("uptrained" not in str(item) for found in findings.orderings.values() for item in found)
    record = next(line for line in (tmp_path / "report" / "results.csv").read_text().splitlines() if "-up-" in line)
    assert ",vanilla-s-0," in record


def shift_loss(name: str, by: float) -> None:
    path = result("evaluate", name)
    record = read_result(path, EvaluateResult, "evaluate")
    nats = [
        value + by * count for value, count in zip(record.nats_by_document, record.targets_by_document, strict=True)
    ]
    write_result(path, dataclasses.replace(record, loss=record.loss + by, nats_by_document=nats))
