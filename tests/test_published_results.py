"""The figures in docs/results/h100.md against the records that they are from."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from pipeline.analysis.page import tables
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.statistics.findings import Findings, find
from pipeline.base.files import read_json
from pipeline.results.records import STAGES
from pipeline.study import load_study
from tests.conftest import ROOT

FOLDER = ROOT / "docs/results/h100"
PAGE = (ROOT / "docs/results/h100.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def findings() -> Findings:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(FOLDER)
        return find(*load_rows(load_study()))


def row_of(text: str, first: str) -> str:
    """The first table row that begins with the column or columns ``first``."""
    return next(line for line in text.splitlines() if line.startswith(f"| {first} |"))


def test_every_finished_cell_has_its_row(findings: Findings) -> None:
    assert len(findings.rows) == 18
    for row in findings.rows:
        line = row_of(PAGE, f"`{row.name}`")
        scored = row.evaluate
        assert f"| {scored.loss:.3f} ± {scored.loss_stderr:.3f} | {scored.bits_per_byte:.3f} |" in line
        for measured in row.benchmark.settings.values():
            assert f"| {measured.tokens_per_second:,.0f} ({100 * measured.roofline_fraction:.0f} %) |" in line
        assert not any(getattr(row, stage).environment.dirty for stage in STAGES)


def test_every_ratio_at_equal_loss_is_the_records(findings: Findings) -> None:
    """In the page's table against that family, in the row of those heads and that loss, in the setting's column."""
    tables_of = dict(re.findall(r"^Against (\S+ ?\S*).*?\n\n(.*?)\n\n", PAGE, re.M | re.S))
    against = {
        "vanilla": tables_of["vanilla:"],
        "vanilla, grouped-query": tables_of["vanilla with"],
        "vanilla, transformers generate": tables_of["transformers' `generate`"],
    }
    heads = {"block": "own", "block, grouped-query": "grouped"}
    checked = []
    for each in (each for each in findings.quality if each.matched.first in heads):
        for estimate in each.matched.estimates:
            anchor = estimate.anchor.removesuffix(" by transformers generate")
            line = row_of(against[each.matched.second], f"{heads[each.matched.first]} | `{anchor}`")
            assert f"| {estimate.at:.3f} |" in line
            told = re.findall(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", line)
            stands = told[["prefill_heavy", "decode_heavy"].index(each.setting)]
            assert [float(value) for value in stands] == [
                float(f"{value:.3g}") for value in (estimate.value, estimate.low, estimate.high) if value is not None
            ]
            checked.append(line)
    assert len(checked) == 2 * len(set(checked)) == 2 * sum(table.count("| `") for table in against.values())


def test_the_records_without_training_are_the_page_s() -> None:
    for record in read_json(FOLDER / "random_weights/context_8192.json"):
        line = row_of(PAGE.partition("## Contexts of 8,192 tokens")[2], f"`{record['cell']['name']}`")
        rates = [record["settings"][name] for name in ("8192+128", "128+8192")]
        shown = (f"{each['tokens_per_second']:,.0f} ({100 * each['roofline_fraction']:.0f} %)" for each in rates)
        assert line.startswith(f"| `{record['cell']['name']}` | {' | '.join(shown)} |")
    (large,) = read_json(FOLDER / "random_weights/paper_sizes.json")
    rates = [large["settings"][name]["tokens_per_second"] / 1000 for name in ("prefill_heavy", "decode_heavy")]
    assert f"| {' / '.join(f'{rate:.3g}' for rate in rates)} |" in row_of(PAGE, "block 1.2B")


def test_every_transformers_rate_is_the_records(findings: Findings) -> None:
    table = PAGE.partition("transformers' `generate` (the largest batch")[2]
    for row in findings.rows:
        for name, measured in row.benchmark.settings.items():
            if measured.baselines:
                line = row_of(table, f"`{row.name}` | {name.replace('_', '-')}")
                assert line.endswith(f" | {measured.tokens_per_second:,.0f} |")
            for baseline in measured.baselines:
                assert f"| {baseline.batch:,} |" in line
                assert f" {baseline.tokens_per_second:,.0f} (" in line


def test_the_tables_beside_the_records_are_theirs(findings: Findings) -> None:
    assert (FOLDER / "results.csv").read_text(encoding="utf-8") == tables.results_csv(findings.rows)
    committed = list(csv.DictReader((FOLDER / "speedup.csv").open(encoding="utf-8")))
    made = list(csv.DictReader(io.StringIO(tables.speedup_csv(findings.quality))))
    assert [row["against"] for row in committed] == [row["against"] for row in made]
    for old, new in zip(committed, made, strict=True):
        assert float(old["ratio"]) == pytest.approx(float(new["ratio"]), rel=1e-9)
        assert float(old["low"]) == pytest.approx(float(new["low"]), rel=1e-6)


def test_figures_are_small() -> None:
    figures = list((FOLDER / "figures").iterdir())
    assert sum(Path(figure).stat().st_size for figure in figures) < 1_000_000
