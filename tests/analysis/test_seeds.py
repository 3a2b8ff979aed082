"""Several seeds: means with their spread, marks with bars, and which comparisons stand."""

from __future__ import annotations

import dataclasses
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from synthetic import study_file, write_results

from pipeline.analysis.figures.canvas import panels
from pipeline.analysis.figures.fronts import draw_front
from pipeline.analysis.page import html, tables
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Row, points
from pipeline.analysis.statistics.findings import find
from pipeline.analysis.statistics.seeds import Contrast, contrast, contrasts
from pipeline.results.metrics import LOSS, PARAMETERS, setting_metric

RATE = setting_metric("decode_heavy", "tokens_per_second")
TARGETS = np.array([100.0] * 40 + [300.0] * 40)


def with_losses(row: Row, losses: np.ndarray) -> Row:
    """The row with these losses by document, nats per token."""
    nats = losses * TARGETS
    evaluate = dataclasses.replace(
        row.evaluate,
        loss=float(nats.sum() / TARGETS.sum()),
        documents=len(TARGETS),
        nats_by_document=nats.tolist(),
        targets_by_document=TARGETS.astype(int).tolist(),
    )
    return dataclasses.replace(row, evaluate=evaluate)


@pytest.fixture
def seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Vanilla and block length 4, four seeds each."""
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (2, 64)}, [4], seeds=[0, 1, 2, 3])
    write_results(study)
    return load_rows(study)[0]


def pair(rows: list[Row], difference: float, by_seed: float, by_document: float, draw: int = 0) -> Contrast:
    """Block less vanilla, where both share what seeds and documents do, and the block has some of its own."""
    generator = np.random.default_rng(draw)
    hard, luck = generator.normal(0, 0.5, len(TARGETS)), generator.normal(0, 0.3, 4)
    own_documents = generator.normal(0, by_document, len(TARGETS))
    made = []
    for row in rows:
        losses = 4 + hard + luck[row.cell.seed]
        if row.cell.block_length:
            losses = losses + difference + generator.normal(0, by_seed) + own_documents
        made.append(with_losses(row, losses))
    vanilla, block = points(made)
    found = contrast(vanilla, block, LOSS)
    assert found is not None
    return found


def test_what_seeds_and_documents_do_to_both_is_no_error(seeded: list[Row]) -> None:
    found = pair(seeded, 0.02, 0.0, 0.0)
    assert found.difference == pytest.approx(0.02)
    assert found.margin == pytest.approx(0.0, abs=1e-6)
    assert (found.stands, found.needed, found.seeds) == (True, 2, 4)


def test_the_variances_are_those_of_the_formulas(seeded: list[Row]) -> None:
    """Against the differences by seed, and a jackknife over documents."""
    generator = np.random.default_rng(3)
    made = [with_losses(row, generator.normal(4, 0.4, len(TARGETS))) for row in seeded]
    vanilla, block = points(made)
    found = contrast(vanilla, block, LOSS)
    assert found is not None
    by_seed = [b.evaluate.loss - a.evaluate.loss for a, b in zip(vanilla.rows, block.rows, strict=True)]
    assert found.difference == pytest.approx(statistics.fmean(by_seed))
    assert found.by_seeds == pytest.approx(statistics.variance(by_seed))
    nats = np.mean([np.array(b.evaluate.nats_by_document) for b in block.rows], axis=0)
    nats = nats - np.mean([np.array(a.evaluate.nats_by_document) for a in vanilla.rows], axis=0)
    left = [np.delete(nats, i).sum() / np.delete(TARGETS, i).sum() for i in range(len(TARGETS))]
    jackknife = (len(left) - 1) * np.var(left)
    assert found.by_documents == pytest.approx(jackknife, rel=0.1)


@pytest.mark.parametrize(("by_seed", "by_document"), [(0.05, 0.0), (0.0, 0.2), (0.03, 0.2)])
def test_the_interval_holds_the_truth_about_95_times_in_100(
    seeded: list[Row], by_seed: float, by_document: float
) -> None:
    found = [pair(seeded, 0.05, by_seed, by_document, draw) for draw in range(200)]
    held = sum(abs(each.difference - 0.05) <= each.margin for each in found)
    assert 180 <= held <= 199


def test_the_seeds_needed_are_those_at_which_it_would_stand(seeded: list[Row]) -> None:
    few = Contrast(LOSS, "s", "vanilla", "block L=4", 3, 0.05, by_seeds=0.05**2)
    assert not few.stands
    assert few.needed == 7  # t(6 degrees, 97.5 %) 0.05 / sqrt(7) = 0.0462, t(5) 0.05 / sqrt(6) = 0.0525
    assert dataclasses.replace(few, seeds=7).stands
    assert not dataclasses.replace(few, seeds=6).stands
    documents = dataclasses.replace(few, by_documents=0.03**2, documents=50)
    assert documents.needed is None  # 1.96 times 0.03 is more than the difference, however many seeds there are


def test_a_rate_is_compared_by_ratio_and_one_seed_compares_nothing(seeded: list[Row]) -> None:
    vanilla, block = points(seeded)
    found = contrast(vanilla, block, RATE)
    assert found is not None
    ratios = [(RATE.value(b) or 0) / (RATE.value(a) or 1) for a, b in zip(vanilla.rows, block.rows, strict=True)]
    assert math.exp(found.difference) == pytest.approx(statistics.geometric_mean(ratios))
    assert found.documents == 0
    alone = [row for row in seeded if row.cell.seed == 0 or not row.cell.block_length]
    assert contrasts(points(alone), [LOSS, RATE]) == []


def test_seeds_are_paired_by_number(seeded: list[Row]) -> None:
    """A diverged seed takes its partner with it."""
    broken = [
        dataclasses.replace(row, pretrain=dataclasses.replace(row.pretrain, diverged=True))
        if row.name == "vanilla-s-1"
        else row
        for row in seeded
    ]
    (found,) = (each for each in find(broken).contrasts if each.metric.key == "loss")
    assert found.seeds == 3
    kept = [row for row in seeded if row.cell.seed != 1]
    vanilla, block = points(kept)
    expected = contrast(vanilla, block, LOSS)
    assert expected is not None
    assert found.difference == pytest.approx(expected.difference)


def test_tables_show_a_model_a_line_with_its_spread(seeded: list[Row]) -> None:
    findings = find(seeded)
    mean = statistics.fmean(row.evaluate.loss for row in seeded[:4])
    spread = statistics.stdev(row.evaluate.loss for row in seeded[:4])
    shown = f"{mean:.4g} ± {spread:.4g}"
    for table in (tables.terminal_table(findings), tables.results_markdown(findings)):
        mine = [line for line in table.splitlines() if "vanilla-s" in line]
        assert len(mine) == 1
        assert "vanilla-s (4 seeds)" in mine[0]
        assert shown in mine[0]
    assert html._models(findings).rows[0][0] == "vanilla-s (4 seeds)"
    verdicts = [row[-1] for row in html._contrasts(findings).rows]
    assert len(verdicts) == len(findings.contrasts) == 3
    alone = find([row for row in seeded if row.cell.seed == 0])
    assert html._models(alone).rows == html._contrasts(alone).rows == []
    assert "±" not in tables.terminal_table(alone)


def test_a_model_is_one_mark_with_bars(seeded: list[Row]) -> None:
    def bars(rows: list[Row]) -> int:
        _, (axes,) = panels(1)
        draw_front(axes, points(rows), RATE, LOSS)
        return sum(isinstance(each, LineCollection) for each in axes.collections)

    assert bars(seeded) == 4  # two models, across and up
    assert bars([row for row in seeded if row.cell.seed == 0]) == 2  # of the timing's repeats alone
    assert PARAMETERS.spread(points(seeded)[0]) == 0.0
