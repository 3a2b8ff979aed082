"""Cells that are trained and evaluated, but not timed: all that is said of losses, and no part in speeds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.page import comparison, tables
from pipeline.analysis.page.report import summary, write_report
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.statistics.compare import front_names, side_of, verdict
from pipeline.analysis.statistics.findings import Findings, environments, find
from pipeline.base.errors import UserError
from pipeline.base.paths import result
from pipeline.results.failures import failure_noted
from pipeline.results.metrics import LOSS
from pipeline.study import Study, cells

BUDGETS = [1_500_000, 750_000]
SPEEDS = re.compile("decode.heavy|generation measured|tokens/s", re.IGNORECASE)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Two sizes of vanilla and of block lengths 2, 4 and 8, two seeds and two budgets, with every result."""
    monkeypatch.chdir(tmp_path)
    sizes = {"s": (4, 128), "m": (6, 192)}
    made = study_file(tmp_path, sizes, [2, 4, 8], seeds=[0, 1], budgets=BUDGETS, few_figures=True)
    write_results(made)
    return made


def found(study: Study) -> Findings:
    return find(*load_rows(study))


def remove(study: Study, stages: Iterable[str], models: str = "") -> list[str]:
    """Remove the results of these stages of the whole cells whose names begin so, or of all."""
    names = [cell.name for cell in cells(study) if cell.budget is None and cell.name.startswith(models)]
    for stage in stages:
        for name in names:
            result(stage, name).unlink()
    return names


def test_a_study_without_timings_says_of_losses_what_it_says_with_them(study: Study) -> None:
    timed = found(study)
    names = remove(study, ["benchmark"])
    untimed = found(study)
    assert [row.name for row in untimed.rows] == [cell.name for cell in cells(study)]
    assert [point.name for point in untimed.points] == [point.name for point in timed.points]
    assert untimed.orderings == {LOSS.key: timed.orderings[LOSS.key]} != {LOSS.key: []}
    assert untimed.contrasts == [each for each in timed.contrasts if each.metric is LOSS] != []
    assert [(each.first, each.estimates) for each in untimed.compute] == [
        (each.first, each.estimates) for each in timed.compute
    ]
    left, right = summary(study, untimed), summary(study, timed)
    same = ("cells", "recipes", "training_flops", "out_of_sample", "colours", "diverged")
    assert {key: left[key] for key in same} == {key: right[key] for key in same}
    assert (untimed.settings, untimed.fronts, untimed.hypervolumes, untimed.quality) == ([], {}, {}, [])
    assert untimed.answer == "No model of the study is timed, so no speed-up can be stated."
    (order,) = untimed.basis
    assert re.fullmatch(
        r"Neighbouring block lengths are ordered as in the paper in \d of 6 comparisons of loss\.", order
    )
    assert [each.cell for each in untimed.missing] == names
    assert not any("no finite" in note or "Generation" in note for note in untimed.notes)
    assert [stage for stage, _, _ in environments(untimed.rows)] == ["pretrain", "evaluate"]


@pytest.mark.usefixtures("no_png")
def test_its_report_has_losses_curves_and_figures_and_names_no_speed(study: Study) -> None:
    names = remove(study, ["benchmark"])
    findings = write_report(study, Path("report"))
    drawn = {path.stem for path in Path("report/figures").glob("*.svg")}
    assert {"curves", "training", "ablation_block_length", "block_position"} <= drawn
    assert not any(SPEEDS.search(name) or name.startswith(("speedup", "batch", "throughput")) for name in drawn)
    told = f"{len(names)} cells are not timed, so they have no speed; `dvc repro` times them: {', '.join(names)}"
    markdown = Path("report/results.md").read_text()
    assert markdown.startswith("Generation is not timed.\n")
    assert markdown.endswith(f"\nMissing results:\n\n- {told}\n")
    terminal = tables.terminal_table(findings)
    assert terminal.splitlines()[-1] == f"missing: {told}"
    assert not SPEEDS.search(markdown + terminal)
    page = Path("report/index.html").read_text()
    assert "<h1>What loss do these models reach?</h1>" in page
    assert f"Results are missing for {len(names)} of {len(cells(study))} cells" in page
    assert "Speed at equal quality" not in page
    assert '<a href="#equal">At equal cost</a>' in page
    table = {row["cell"]: row for row in csv.DictReader(io.StringIO(Path("report/results.csv").read_text()))}
    assert list(table) == [cell.name for cell in cells(study)]
    assert all(float(row["loss"]) > 0 for row in table.values())
    assert not any(SPEEDS.search(column) for column in table["vanilla-s-0"])
    for name in ("pareto.csv", "speedup.csv"):
        assert len(Path(f"report/{name}").read_text().splitlines()) == 1


@pytest.mark.parametrize("models", ["block-s-4", "block-m", "vanilla-s"])
def test_models_that_are_not_timed_change_no_speed(study: Study, models: str) -> None:
    """Fronts, speed-ups and orders of speed are those of the same study without these models."""
    names = remove(study, ["benchmark"], models)
    mixed = found(study)
    assert [each.cell for each in mixed.missing] == names
    assert len(mixed.rows) == len(cells(study))
    remove(study, ["pretrain", "evaluate"], models)
    without = found(study)
    for name in ("answer", "further", "settings", "hypervolumes"):
        assert getattr(mixed, name) == getattr(without, name)
    assert mixed.quality
    assert mixed.basis[:-1] == without.basis[:-1], "the last one counts comparisons of loss too"
    assert tables.speedup_csv(mixed.quality) == tables.speedup_csv(without.quality)
    assert tables.pareto_csv(mixed.rows, mixed.fronts) == tables.pareto_csv(without.rows, without.fronts)
    speeds = [key for key in mixed.orderings if SPEEDS.search(key)]
    assert speeds
    assert all(list(map(str, mixed.orderings[key])) == list(map(str, without.orderings[key])) for key in speeds)
    assert len(mixed.orderings[LOSS.key]) == 6 > len(without.orderings[LOSS.key])
    assert [note for note in mixed.notes if "front" in note] == []


@pytest.mark.usefixtures("no_png")
def test_a_mixed_study_has_the_losses_of_all_and_the_speeds_of_the_timed(study: Study) -> None:
    remove(study, ["benchmark"], "block-m")
    findings = write_report(study, Path("report"))
    assert Path("report/figures/throughput_decode_heavy.svg").exists()
    lines = {line.split()[0]: line.split() for line in tables.terminal_table(findings).splitlines() if line}
    assert lines["block-m-2-base"][-1] == "-"
    assert lines["block-s-2-base"][-1] != "-"
    (loss,) = [order for key, order in findings.orderings.items() if key == LOSS.key]
    assert {comparison.size for comparison in loss} == {"s", "m"}
    assert tables.results_markdown(findings).startswith("Generation measured on Test CPU, 2 threads, fp32.\n")


def test_where_one_family_alone_is_timed_the_headline_says_so(study: Study) -> None:
    remove(study, ["benchmark"], "block")
    assert found(study).headline == "The study has only vanilla models that trained and were timed."


def test_a_cell_whose_benchmark_failed_is_one_that_is_not_timed(study: Study) -> None:
    """Its reason is the error's line."""
    first, second = remove(study, ["benchmark"], "block-s-2")
    with pytest.raises(UserError), failure_noted("benchmark", first):
        raise UserError("out of luck")
    findings = found(study)
    assert [row.name for row in findings.rows if row.cell.budget is None and not row.timed] == [first, second]
    assert [(each.cell, each.absent) for each in findings.missing] == [(first, False), (second, True)]
    assert findings.missing[0].reason == "it failed: out of luck"


def test_a_study_without_timings_compares_in_losses(study: Study) -> None:
    timed = side_of("timed", study, *load_rows(study))
    names = remove(study, ["benchmark"])
    untimed = side_of("untimed", study, *load_rows(study))
    assert [each.cell for each in untimed.missing] == names
    by = verdict([timed, untimed])
    assert (by.measure, by.compares, by.warnings) == (LOSS, True, [])
    assert {row[2:] for row in comparison.shared_table([timed, untimed], by).rows} == {("+0.0000", "-")}
    assert front_names(untimed, "decode_heavy", LOSS) == set()
    assert comparison.chart([untimed], LOSS) == {}
    assert "untimed: vanilla-s-0, stage benchmark: " in comparison.render_comparison([timed, untimed])
