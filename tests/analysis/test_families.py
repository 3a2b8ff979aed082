"""Families: who shares a front, who is compared with whom, and where that is told."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.figures.draw import figures
from pipeline.analysis.page.html import render
from pipeline.analysis.page.report import summary
from pipeline.analysis.page.tables import speedup_csv
from pipeline.analysis.rows.families import attention, slug
from pipeline.analysis.rows.groups import by_family, contenders, generate_points, references
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Row, points
from pipeline.analysis.statistics.findings import Findings, find
from pipeline.study import Study, cells
from pipeline.study.schema import Setting

SETTINGS = {"prefill": (448, 32), "decode": (32, 448)}
VANILLA = ["vanilla", "vanilla, grouped-query", "vanilla, transformers generate"]
BLOCKS = ["block", "block L=2", "block L=4", "block L=8"]


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """Three sizes of vanilla, of vanilla with two key and value heads, and of three block lengths; two settings."""
    folder = tmp_path_factory.mktemp("grouped")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = study_file(folder, {"s": (4, 128), "m": (6, 256), "l": (8, 512)}, [2, 4, 8], grouped=True)
        settings = {name: Setting(*lengths) for name, lengths in SETTINGS.items()}
        made = dataclasses.replace(made, benchmark=dataclasses.replace(made.benchmark, settings=settings))
        write_results(made)
        yield made


@pytest.fixture(scope="module")
def findings(grouped: Study) -> Findings:
    return find(load_rows(grouped)[0])


def test_vanilla_models_are_families_by_attention_and_by_engine(findings: Findings) -> None:
    assert list(references(findings.compared)) == VANILLA
    names = {name: [point.size for point in members] for name, members in by_family(findings.points).items()}
    assert names["vanilla"] == ["s", "m", "l"]
    assert names["vanilla, grouped-query"] == ["s_gqa", "m_gqa", "l_gqa"]


def test_block_lengths_are_compared_each_and_as_one_family(findings: Findings) -> None:
    found = contenders(findings.compared)
    assert {name: len(members) for name, members in found.items()} == dict.fromkeys(BLOCKS, 3) | {"block": 9}


def test_each_is_compared_with_each_in_every_setting_with_intervals_from_one_seed(findings: Findings) -> None:
    pairs = {(each.setting, each.matched.first, each.matched.second) for each in findings.quality}
    assert pairs == {(setting, mine, other) for setting in SETTINGS for mine in BLOCKS for other in VANILLA}
    assert len(findings.quality) == len(pairs)
    for best in (each.matched.best for each in findings.quality):
        assert best is not None
        assert best.low is not None
        assert best.high is not None
        assert best.low <= best.value <= best.high


def test_losses_at_equal_flops_have_intervals_from_one_seed_and_speeds_need_several(findings: Findings) -> None:
    at_flops = [each for each in findings.costs if each.equal.key == "training_flops" and each.estimates]
    losses = [each.estimates[0] for each in at_flops if each.measured.key == "loss"]
    assert losses
    for estimate in losses:
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < estimate.value < estimate.high
    speeds = [each for each in at_flops if each.measured.key != "loss"]
    assert all("several seeds" in each.remark for each in speeds)


def test_the_family_is_as_fast_as_its_fastest_block_length(findings: Findings) -> None:
    """At each loss where a block length is compared, its ratio is no more than that of the family's front."""
    ratios = {(each.setting, each.matched.first, each.matched.second): each.matched for each in findings.quality}
    for setting in SETTINGS:
        for reference in VANILLA:
            family = {e.anchor: e.value for e in ratios[setting, "block", reference].estimates}
            for name in BLOCKS[1:]:
                for estimate in ratios[setting, name, reference].estimates:
                    if estimate.anchor in family:
                        assert estimate.value <= family[estimate.anchor] * (1 + 1e-9)


def test_transformers_points_have_the_faster_caches_speed_and_no_memory(findings: Findings) -> None:
    theirs = next(point for point in findings.compared if point.name == "vanilla-m by transformers generate")
    ours = next(point for point in findings.points if point.name == "vanilla-m")
    for name, setting in ours.rows[0].benchmark.settings.items():
        speed = theirs.rows[0].benchmark.settings[name]
        assert speed.tokens_per_second == max(each.tokens_per_second for each in setting.baselines)
    assert theirs.rows[0].evaluate == ours.rows[0].evaluate
    assert [point.size for point in generate_points(findings.points)] == ["s", "m", "l"]
    dropped = [message for front in findings.fronts.values() for message in front.dropped]
    assert dropped == []


def test_without_baselines_there_is_no_family_of_them(rows: list[Row]) -> None:
    def without(row: Row) -> Row:
        settings = {name: dataclasses.replace(each, baselines=[]) for name, each in row.benchmark.settings.items()}
        return dataclasses.replace(row, benchmark=dataclasses.replace(row.benchmark, settings=settings))

    assert generate_points(points([without(row) for row in rows])) == []


def test_each_family_of_block_transformers_has_its_sentences_and_the_colour_of_its_attention(grouped: Study) -> None:
    grid = grouped.grid
    both = dataclasses.replace(grid, block=dataclasses.replace(grid.block, size=["s", "m", "s_gqa", "m_gqa"]))
    study = dataclasses.replace(grouped, grid=both)
    write_results(study)
    found = find(load_rows(study)[0])
    shared = "vanilla transformers with grouped-query attention"
    assert ", block transformers generate " in found.answer
    assert f" times as fast as {shared} in the prefill setting" in found.answer
    told = [sentence.partition(" (")[0] for sentence in found.further if "generate" not in sentence]
    assert told == [
        "Against vanilla transformers",
        "Block transformers with grouped-query attention against vanilla transformers",
        f"Block transformers with grouped-query attention against {shared}",
    ]
    drawn = {drawing.name: figure for figure, drawing in figures(study, found)}
    lines = {str(line.get_label()): line for line in drawn["throughput_decode"].axes[0].lines}
    for name in ("vanilla", "block"):
        plain, shared = lines[f"{name} front"], lines[f"{name}, grouped-query front"]
        assert plain.get_color() == shared.get_color()
        assert (plain.get_linestyle(), shared.get_linestyle()) == ("-", "--")
    assert lines["vanilla front"].get_color() != lines["block front"].get_color()


def test_attention_is_told_by_the_resolved_heads(grouped: Study) -> None:
    told = {cell.name: attention(grouped, cell) for cell in cells(grouped)}
    assert told["vanilla-m-0"] == ""
    assert told["vanilla-m_gqa-0"] == "grouped-query"
    variant = grouped.variants["base"]
    one = dataclasses.replace(variant.token_decoder, kv_heads=1)
    mixed = dataclasses.replace(grouped, variants={"base": dataclasses.replace(variant, token_decoder=one)})
    block = next(cell for cell in cells(mixed) if cell.family == "block")
    assert attention(mixed, block) == "grouped-query"


def test_labels_become_names_that_mlflow_and_file_systems_take() -> None:
    assert slug("block, grouped-query L=4") == "block_grouped-query_L4"


def test_summary_figures_page_and_file_tell_every_comparison(
    grouped: Study, findings: Findings, tmp_path: Path
) -> None:
    told = summary(grouped, findings)
    assert set(told["speedup"]) == set(SETTINGS)
    for ratios in told["speedup"].values():
        assert set(ratios) == {"block", "block_L2", "block_L4", "block_L8"}
        assert all(set(each) == {slug(name) for name in VANILLA} for each in ratios.values())
    assert set(told["hypervolume"]["decode"]) == {slug(name) for name in VANILLA} | {"block"}
    drawn = {drawing.name: figure for figure, drawing in figures(grouped, findings)}
    for name in VANILLA:
        axes = drawn[f"speedup_{slug(name)}"].axes
        assert len(axes) == len(SETTINGS)
        assert all(set(BLOCKS) <= {str(line.get_label()) for line in panel.lines} for panel in axes)
    lines = {str(line.get_label()) for line in drawn["throughput_decode"].axes[0].lines}
    assert lines >= {f"{name} front" for name in (*VANILLA, "block")}
    page = render(grouped, findings, [], tmp_path)
    assert "Against vanilla transformers with grouped-query attention (" in page
    assert all(f"Decode generation, against {name}</span></caption>" in page for name in VANILLA)
    records = list(csv.DictReader(io.StringIO(speedup_csv(findings.quality))))
    assert len(records) == sum(len(each.matched.estimates) for each in findings.quality)
    best = next(each.matched.best for each in findings.quality if each.matched.second == VANILLA[1])
    row = next(row for row in records if row["against"] == VANILLA[1])
    assert best is not None
    assert float(row["ratio"]) == pytest.approx(best.value)
    assert float(row["roofline_ratio"]) > 0
