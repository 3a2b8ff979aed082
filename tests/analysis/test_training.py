"""What training took: loss by tokens and FLOPs, FLOPs at equal loss, and warnings on short and unfinished runs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.figures.training import training_figures
from pipeline.analysis.page import recipes as page
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Point, Row, points
from pipeline.analysis.rows.training import LossPoint, loss_points
from pipeline.analysis.statistics.findings import find
from pipeline.analysis.statistics.training import compute, compute_words, end_slope, warnings
from pipeline.results.curve import read_curve
from pipeline.study import Study
from pipeline.study.schema import Pretrain
from tests.conftest import ROOT

RECIPES = ROOT / "docs/results/recipe"
SHORT = ROOT / "docs/results/h100/checkpoints"


@pytest.fixture
def template(rows: list[Row]) -> Row:
    return rows[0]


def trained(
    template: Row, family: str, size: str, tokens: int, loss: float, flops: float, seed: int = 0, whole: int = 4_000_000
) -> Row:
    """A cell of ``tokens``, one of a budget where those are fewer than ``whole``; no losses by document."""
    block = (2, "base") if family == "block" else (None, None)
    budget = None if tokens == whole else tokens
    cell = dataclasses.replace(
        template.cell, family=family, size=size, seed=seed, block_length=block[0], variant=block[1], budget=budget
    )
    settings = {name: dataclasses.replace(each, baselines=[]) for name, each in template.benchmark.settings.items()}
    return dataclasses.replace(
        template,
        cell=cell,
        benchmark=dataclasses.replace(template.benchmark, settings=settings),
        pretrain=dataclasses.replace(template.pretrain, tokens=tokens, training_flops=flops),
        evaluate=dataclasses.replace(template.evaluate, loss=loss, nats_by_document=[], targets_by_document=[]),
    )


def budgets(template: Row, family: str, size: str, times: float = 1.0, seeds: int = 1, shift: float = 0.0) -> list[Row]:
    """A model after 1, 2 and 4 million tokens, whose loss falls by 0.2 a doubling of its FLOPs / ``times``."""
    return [
        trained(template, family, size, tokens, 4.0 - 0.2 * at + shift * seed, times * 1e12 * 2**at, seed)
        for at, tokens in enumerate((1_000_000, 2_000_000, 4_000_000))
        for seed in range(seeds)
    ]


def test_losses_are_those_of_finished_trainings_by_tokens_and_seed(template: Row) -> None:
    rows = budgets(template, "vanilla", "s", seeds=2, shift=0.01)
    found = loss_points(rows[::-1])
    assert list(found) == ["vanilla-s"]
    assert found["vanilla-s"][:3] == [
        LossPoint(1_000_000, 1e12, 4.0, 0),
        LossPoint(1_000_000, 1e12, 4.01, 1),
        LossPoint(2_000_000, 2e12, 3.8, 0),
    ]
    assert len(found["vanilla-s"]) == 6


def test_what_diverged_or_began_elsewhere_has_no_place_among_them(
    template: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverged = dataclasses.replace(template, pretrain=dataclasses.replace(template.pretrain, diverged=True))
    infinite = dataclasses.replace(template, evaluate=dataclasses.replace(template.evaluate, loss=math.nan))
    assert loss_points([diverged, infinite]) == {}
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 64)}, [4], others=True)
    write_results(study)
    assert list(loss_points(load_rows(study)[0])) == ["vanilla-s", "block-s-4-base"]


def test_training_flops_are_compared_at_equal_loss(template: Row) -> None:
    """Vanilla's loss falls by 0.2 a doubling; the block transformer takes three times the FLOPs to each loss."""
    rows = budgets(template, "vanilla", "s") + budgets(template, "block", "s", times=3.0)
    (matched,) = compute(points(rows))
    assert {round(each.at, 6): each.value for each in matched.estimates} == pytest.approx(
        {4.0: 3.0, 3.8: 3.0, 3.6: 3.0}
    )
    assert matched.best is not None
    assert matched.best.at == pytest.approx(3.6)
    assert compute_words(matched, seeds=1) == (
        "At a loss of 3.600, the lowest that both reach, block transformers take 3 times the training FLOPs of "
        "vanilla transformers; no interval: it needs several seeds, or losses by document."
    )


def test_between_vanilla_points_the_logarithm_of_flops_is_interpolated(template: Row) -> None:
    rows = [*budgets(template, "vanilla", "s"), trained(template, "block", "s", 4_000_000, 3.7, 6e12)]
    (matched,) = compute(points(rows))
    assert [each.value for each in matched.estimates] == pytest.approx([6e12 / (2e12 * 2**0.5)])


def test_only_the_cheapest_models_of_each_loss_bound_it(template: Row) -> None:
    """A vanilla model that is dearer and no better than another changes nothing."""
    rows = budgets(template, "vanilla", "s") + budgets(template, "block", "s", times=3.0)
    dear = [trained(template, "vanilla", "m", 4_000_000, 3.9, 9e12)]
    assert compute(points(rows + dear))[0].best == compute(points(rows))[0].best


@pytest.mark.parametrize("loss", [3.5, 4.1])
def test_a_loss_that_vanilla_does_not_reach_has_no_ratio(template: Row, loss: float) -> None:
    rows = [*budgets(template, "vanilla", "s"), trained(template, "block", "s", 4_000_000, loss, 6e12)]
    (matched,) = compute(points(rows))
    assert matched.best is None
    assert compute_words(matched, seeds=1) == (
        "No ratio of the training FLOPs of block transformers to those of vanilla transformers at equal loss: no "
        f"value is reached by both (Loss (nats per token): block {loss:g}, vanilla 3.6 to 4)."
    )


def test_seeds_give_an_interval_that_holds_the_ratio(template: Row) -> None:
    rows = budgets(template, "vanilla", "s", seeds=3, shift=0.01)
    rows += budgets(template, "block", "s", times=3.0, seeds=3, shift=0.01)
    (matched,) = compute(points(rows))
    middle = next(each for each in matched.estimates if each.at == pytest.approx(3.81))
    assert middle.low is not None
    assert middle.high is not None
    assert 2.5 < middle.low < 3.0 < middle.high < 3.5


def test_one_seed_with_losses_by_document_says_what_its_interval_lacks(study: Study) -> None:
    findings = find(load_rows(study)[0])
    (sentence,) = page.compute_sentences(findings)
    assert "(95 % interval " in sentence
    assert sentence.endswith("vanilla transformers; one seed, so the interval is of the test documents alone.")


def test_families_block_lengths_and_models_are_compared_each(study: Study) -> None:
    table = page.section(find(load_rows(study)[0]))["ratios"]
    names = [row[0] for row in table.rows]
    assert names[:4] == ["block", "block L=2", "block L=4", "block L=8"]
    assert names[4:] == [f"block-{size}-{length}-base" for size in "sm" for length in (2, 4, 8)]


def test_one_family_alone_has_no_ratio_and_its_losses_stand(study: Study) -> None:
    findings = find([row for row in load_rows(study)[0] if row.cell.family == "vanilla"])
    section = page.section(findings)
    assert (section["compute"], section["ratios"].rows) == ([], [])
    assert [row[0] for row in section["losses"].rows] == ["vanilla-s", "vanilla-m"]


def test_budgets_take_part_in_training_and_in_no_comparison_of_speed(template: Row) -> None:
    rows = budgets(template, "vanilla", "s", seeds=2) + budgets(template, "block", "s", times=3.0, seeds=2)
    findings = find(rows)
    assert [point.name for point in findings.points] == ["vanilla-s", "block-s-2-base"]
    assert [point.name for point in findings.trained][:3] == ["vanilla-s-1000000", "vanilla-s-2000000", "vanilla-s"]
    table = {(row[0], row[1]): row[2:] for row in page.section(findings)["losses"].rows}
    assert table["vanilla-s", "1M"] == ("1T", "4.000", "2")
    assert table["block-s-2-base", "4M"] == ("12T", "3.600", "2")


def drawn(found: list[Point]) -> dict[str, object]:
    return {drawing.name: figure for figure, drawing in training_figures(found)}


def test_a_line_joins_the_budgets_of_a_model_or_the_sizes_of_a_series(template: Row, rows: list[Row]) -> None:
    several = points(budgets(template, "vanilla", "s") + budgets(template, "vanilla", "m", times=4.0))
    (figure,) = drawn(several).values()
    tokens, flops = figure.axes  # type: ignore[attr-defined]
    assert [list(line.get_xdata()) for line in tokens.lines] == 2 * [[1e6, 2e6, 4e6]]
    assert [list(line.get_xdata()) for line in flops.lines] == [[1e12, 2e12, 4e12], [4e12, 8e12, 16e12]]
    (figure,) = drawn(points(rows)).values()
    (axes,) = figure.axes  # type: ignore[attr-defined]
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 2, 2, 2]
    assert drawn(several[:1]) == {}
    assert drawn([]) == {}


def curve_of(template: Row, losses: list[float], schedule: str = "cosine", steps: int = 2400) -> Row:
    """A run whose curve has these training losses, at equal distances."""
    every = steps // len(losses)
    at = [float(every * (place + 1)) for place in range(len(losses))]
    curve = {"step": at, "tokens": [1000 * step for step in at], "train_loss": losses}
    recipe = dataclasses.replace(template.recipe or Pretrain(), schedule=schedule)
    return dataclasses.replace(
        template, curve=curve, recipe=recipe, pretrain=dataclasses.replace(template.pretrain, steps=steps)
    )


def falling(rate: float, rows: int = 40) -> list[float]:
    """Losses that fall by ``rate`` a doubling of tokens."""
    return [5 - rate * math.log2(place) for place in range(1, rows + 1)]


def test_the_slope_before_the_end_is_nats_a_doubling(template: Row) -> None:
    slope = end_slope(curve_of(template, falling(0.2)))
    assert slope == pytest.approx((0.2, 0.0), abs=1e-9)


def test_a_cooldown_is_left_out_of_the_slope(template: Row) -> None:
    """The last fifth of a run with wsd cools down: its descent says nothing of what more tokens bring."""
    losses = falling(0.05)
    losses[32:] = [loss - 0.1 * place for place, loss in enumerate(losses[32:], start=1)]
    wsd, cosine = (end_slope(curve_of(template, losses, schedule)) for schedule in ("wsd", "cosine"))
    assert wsd is not None
    assert cosine is not None
    assert wsd[0] == pytest.approx(0.05)
    assert cosine[0] > 1


def test_a_curve_that_is_short_or_lost_has_no_slope(template: Row) -> None:
    assert end_slope(curve_of(template, falling(0.2, rows=12))) is None
    assert end_slope(dataclasses.replace(template, curve={})) is None
    assert end_slope(curve_of(template, [math.nan] * 40)) is None
    whole = curve_of(template, falling(0.2))
    assert end_slope(dataclasses.replace(whole, curve={"tokens": whole.curve["tokens"]})) is None


def test_few_steps_and_steep_ends_are_one_line_each(template: Row) -> None:
    good = curve_of(template, falling(0.05))
    steep = curve_of(template, falling(0.3))
    short = curve_of(template, falling(0.05), steps=800)
    assert warnings([good, good]) == []
    assert warnings([good, steep]) == [
        "1 of 2 training curves still fall steeply at their end (0.30 nats per doubling of tokens): vanilla-s-0. "
        "More training may change orders."
    ]
    assert warnings([good, short, good]) == [
        "1 of 3 cells took fewer than 2,000 steps (800): vanilla-s-0. "
        "Orders measured so were wrong (docs/results/recipe.md)."
    ]
    assert warnings([short])[0].startswith("1 of 1 cells took fewer than 2,000 steps (800). Orders")


def test_a_warning_names_a_few_cells_and_counts_the_others(template: Row) -> None:
    good = curve_of(template, falling(0.05))
    short = [
        dataclasses.replace(
            curve_of(template, falling(0.05), steps=steps), cell=dataclasses.replace(template.cell, seed=seed)
        )
        for seed, steps in enumerate(range(400, 1300, 100), start=1)
    ]
    (line,) = warnings([good, *short])
    assert "9 of 10 cells took fewer than 2,000 steps (400 to 1,200): vanilla-s-1, " in line
    assert "vanilla-s-6, 3 more. " in line


def test_noise_alone_warns_of_nothing(template: Row) -> None:
    """A slope within its own error is none: 40 rows with a noise of 0.3 nats, which fall by 0.05."""
    noisy = [loss + (0.3 if place % 3 else -0.6) for place, loss in enumerate(falling(0.05))]
    slope = end_slope(curve_of(template, noisy))
    assert slope is not None
    assert slope[1] > 0.3
    assert warnings([curve_of(template, noisy)]) == []


def test_diverged_uptrained_and_foreign_models_are_not_warned_of(
    template: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 64)}, [4], others=True)
    write_results(study)
    rows = load_rows(study)[0]
    assert warnings([row for row in rows if row.cell.family == "pretrained" or row.cell.source]) == []
    diverged = dataclasses.replace(template, pretrain=dataclasses.replace(template.pretrain, diverged=True))
    assert warnings([diverged]) == []
    short = dataclasses.replace(template, cell=dataclasses.replace(template.cell, budget=1_000_000))
    assert warnings([short]) == []


def committed(template: Row, folder: Path, steps: int) -> list[str]:
    """Of the published curves in the folder, those that the report calls steep."""
    pretrain = dataclasses.replace(template.pretrain, steps=steps)
    rows = [
        dataclasses.replace(template, curve=read_curve(path), pretrain=pretrain)
        for path in sorted(folder.glob("*/curve.csv"))
    ]
    assert len(rows) > 10
    slopes = [end_slope(row) for row in rows]
    flagged = [bool(any("steeply" in line for line in warnings([row]))) for row in rows]
    assert all(slopes)
    names = [path.parent.name for path in sorted(folder.glob("*/curve.csv"))]
    return [name for name, steep in zip(names, flagged, strict=True) if steep]


def test_the_threshold_is_calibrated_on_the_published_curves(template: Row) -> None:
    """All 763-step runs are steep; of those with 3,052 steps L 4 and 8 are, and others at the highest rates alone."""
    assert len(committed(template, SHORT, 763)) == 18
    long = {"block-19m-4", "block-19m-4_rest_4e-3", "block-19m-8", "block-85m-4"}
    high = {"block-19m-2_8e-3", "block-19m-4_8e-3", "block-19m-8_8e-3", "vanilla-19m_16e-3"}
    assert set(committed(template, RECIPES, 3052)) == long | high


def test_warnings_stand_among_the_notes(study: Study) -> None:
    notes = find(load_rows(study)[0]).notes
    assert sum("8 of 8 cells took fewer than 2,000 steps (366)" in note for note in notes) == 1
