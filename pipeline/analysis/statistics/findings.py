"""What the results say: fronts, speed at equal quality and cost, orders, recipes, fits, and what limits them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.analysis.rows import timing
from pipeline.analysis.rows.families import slug
from pipeline.analysis.rows.groups import contenders, generate_points, references
from pipeline.analysis.rows.load import Missing
from pipeline.analysis.rows.points import Point, Row, series_of, timed, timed_points, trained_points, whole_points
from pipeline.analysis.statistics import extrapolation, ordering, pareto, speedup, training
from pipeline.analysis.statistics.extrapolation import Predicted
from pipeline.analysis.statistics.headline import answers, basis
from pipeline.analysis.statistics.ordering import Comparison
from pipeline.analysis.statistics.pareto import Front
from pipeline.analysis.statistics.recipes import ModelRecipe, recipes
from pipeline.analysis.statistics.scaling import Scaling, scale
from pipeline.analysis.statistics.seeds import Contrast, contrasts
from pipeline.analysis.statistics.speedup import Matched, Quality
from pipeline.analysis.statistics.tasks import at_chance
from pipeline.results.metrics import LOSS, TRAINING_FLOPS, Metric, limit_metric, readable, setting_metric, settings_of
from pipeline.results.records import STAGES, Environment

NOISY = 0.2  # (max - min) / median of the timings from which a note warns


@dataclass(frozen=True)
class Findings:
    """Everything that the report states, computed once.

    ``fronts`` is keyed by setting (loss and tokens/s), ``{setting}_memory`` (loss and bytes per sample) and
    ``{setting}_all`` (all three); ``hypervolumes`` by setting; ``orderings`` by metric key. ``quality`` compares each
    family of block transformers with each vanilla one in each setting (:mod:`pipeline.analysis.rows.families`).
    ``points`` are compared in quality, those that are timed in speed too; ``trained`` are these and what cells with a
    budget reached. ``predicted`` are speeds at losses that the laws of ``scaling`` go on to.
    ``compared`` are the points, and the vanilla ones again at the speed of transformers' ``generate``. ``compute``
    has the ratios of training FLOPs at equal loss, ``recipes`` one per model that the study trains. ``contrasts`` are
    empty where no two neighbours share two seeds. ``answer`` is the study's, ``basis`` what that rests on, ``further``
    the same against other families.
    """

    rows: list[Row]
    points: list[Point]
    trained: list[Point]
    compared: list[Point]
    settings: list[str]
    fronts: dict[str, Front]
    hypervolumes: dict[str, dict[str, float]]
    quality: list[Quality]
    costs: list[Matched]
    compute: list[Matched]
    recipes: list[ModelRecipe]
    orderings: dict[str, list[Comparison]]
    contrasts: list[Contrast]
    scaling: Scaling
    predicted: list[Predicted]
    missing: list[Missing]
    notes: list[str]
    answer: str
    basis: list[str]
    further: list[str]

    @property
    def headline(self) -> str:
        """The answer, with what it rests on."""
        return " ".join((self.answer, *self.basis))


def find(rows: list[Row], missing: Sequence[Missing] = ()) -> Findings:
    """Analyze a study's rows. Cells that diverged are in the tables alone, ``missing`` ones in a list.

    Budgets count where training is judged, and nowhere else.
    """
    trained = trained_points(rows)
    kept = whole_points(trained)
    with_speed = timed_points(kept)
    compared = [*kept, *generate_points(kept)]
    settings = settings_of(rows)
    fronts = _fronts(with_speed, settings)
    quality = _at_equal_quality(timed_points(compared), settings)
    rates = [setting_metric(setting, "tokens_per_second") for setting in settings]
    orderings = _orderings(kept, rates)
    scaling = scale(trained)
    answer, *further = answers(kept, quality, hardware([row for point in kept for row in point.rows]))
    return Findings(
        rows=rows,
        points=kept,
        trained=trained,
        compared=compared,
        settings=settings,
        fronts=fronts,
        hypervolumes={setting: _hypervolumes(compared, setting) for setting in settings},
        quality=quality,
        costs=_at_equal_cost(kept, settings),
        compute=training.compute(trained),
        recipes=recipes(rows),
        orderings=orderings,
        contrasts=contrasts(kept, [LOSS]) + contrasts(with_speed, rates),
        scaling=scaling,
        predicted=extrapolation.predict(scaling.laws, settings),
        missing=list(missing),
        notes=_notes(rows, fronts),
        answer=answer,
        basis=basis(kept, quality, orderings),
        further=further,
    )


def hardware(rows: list[Row]) -> str:
    """The devices that generation was measured on, in words."""
    devices = dict.fromkeys(row.benchmark.environment.hardware for row in timed(rows))
    return " and ".join(devices)


def environments(rows: list[Row]) -> list[tuple[str, Environment, int]]:
    """(stage, environment, number of cells) for each distinct one."""
    records = {
        (stage, record.cell.name): record.environment
        for stage in STAGES
        for record in (getattr(row, stage) for row in (timed(rows) if stage == "benchmark" else rows))
    }
    used = [(stage, environment) for (stage, _), environment in records.items()]
    return [(stage, environment, used.count((stage, environment))) for stage, environment in dict.fromkeys(used)]


def _orderings(kept: list[Point], rates: list[Metric]) -> dict[str, list[Comparison]]:
    with_speed = timed_points(kept)
    orderings = {LOSS.key: ordering.compare(kept)} | {rate.key: ordering.compare(with_speed, rate) for rate in rates}
    allocations = ordering.compare_best_allocations(kept)
    return orderings | ({ordering.SHARE.key: allocations} if allocations else {})


def _fronts(kept: list[Point], settings: list[str]) -> dict[str, Front]:
    fronts = {}
    for setting in settings:
        rate, memory = (setting_metric(setting, field) for field in ("tokens_per_second", "bytes_per_sample"))
        fronts[setting] = pareto.front(kept, (LOSS, rate))
        fronts[f"{setting}_memory"] = pareto.front(kept, (LOSS, memory))
        fronts[f"{setting}_all"] = pareto.front(kept, (LOSS, rate, memory))
    return fronts


def _hypervolumes(compared: list[Point], setting: str) -> dict[str, float]:
    """What each family's front covers, in nats times doublings of tokens/s, up to the worst of all points in each."""
    import numpy as np

    rate = setting_metric(setting, "tokens_per_second")
    complete = [point for point in compared if LOSS.of(point) is not None and rate.of(point) is not None]
    values = np.array([[LOSS.of(point), rate.of(point)] for point in complete], float).reshape(-1, 2)
    values[:, 1] = np.log2(values[:, 1])
    if not complete:
        return {}
    worst = (values[:, 0].max(), values[:, 1].min())
    families = np.array([point.family for point in complete])
    return {
        slug(family): pareto.hypervolume(values[families == family], worst, (True, False))
        for family in dict.fromkeys(families.tolist())
    }


def _at_equal_quality(compared: list[Point], settings: list[str]) -> list[Quality]:
    quality = []
    for other, mine in itertools.product(references(compared).items(), contenders(compared).items()):
        for name in settings:
            rate, limit = setting_metric(name, "tokens_per_second"), limit_metric(name)
            matched = speedup.at_equal_quality(mine, other, LOSS, rate)
            limits = speedup.at_equal_quality(mine, other, LOSS, limit, intervals=False)
            quality.append(Quality(name, matched, limits))
    return quality


def _at_equal_cost(kept: list[Point], settings: list[str]) -> list[Matched]:
    """Each block series against each vanilla family: tokens/s and loss at equal training FLOPs and bytes per sample."""
    blocks = [point for point in kept if point.kind in ("block", "uptrained")]
    matched = []
    for name, other in itertools.product(series_of(blocks), references(kept).items()):
        sides = (name, [point for point in blocks if point.series == name]), other
        matched.append(speedup.at_equal_cost(*sides, TRAINING_FLOPS, LOSS))
        for setting in settings:
            rate, memory = (setting_metric(setting, field) for field in ("tokens_per_second", "bytes_per_sample"))
            matched.append(speedup.at_equal_cost(*sides, TRAINING_FLOPS, rate))
            matched.append(speedup.at_equal_cost(*sides, memory, rate))
            matched.append(speedup.at_equal_cost(*sides, memory, LOSS))
    return matched


def _notes(rows: list[Row], fronts: dict[str, Front]) -> list[str]:
    """What a reader must know before comparing."""
    notes = []
    devices = {row.benchmark.environment.hardware for row in timed(rows)}
    if len(devices) > 1:
        notes.append(
            f"Generation was measured on different hardware ({'; '.join(sorted(devices))}), so tokens/s do not compare."
        )
    diverged = [row.name for row in rows if row.pretrain.diverged]
    if diverged:
        notes.append(f"Training diverged, so these take part in no comparison: {', '.join(diverged)}.")
    scored = [(row, LOSS.value(row)) for row in rows if not row.pretrain.diverged]
    poor = [row.name for row, loss in scored if loss is None or loss >= row.evaluate.unigram_loss]
    if poor:
        notes.append(f"No better than the unigram baseline: {', '.join(poor)}.")
    benchmarks = {row.benchmark.cell.name: row.benchmark for row in timed(rows)}
    noisy = [
        f"{name} {readable(setting)} {measured.spread:.0%}"
        for name, benchmark in benchmarks.items()
        for setting, measured in benchmark.settings.items()
        if measured.spread > NOISY
    ]
    if noisy:
        notes.append(f"Timings that spread by more than {NOISY:.0%} between repeats: {', '.join(noisy)}.")
    notes += training.warnings(rows)
    notes += [sentence for sentence in [at_chance(rows)] if sentence]
    for note in dict.fromkeys(note for benchmark in benchmarks.values() for note in benchmark.notes):
        named = ", ".join(name for name, benchmark in benchmarks.items() if note in benchmark.notes)
        notes.append(f"Benchmark of {named}: {note}.")
    notes += timing.borrowed(rows)
    if any(environment.dirty for _, environment, _ in environments(rows)):
        notes.append("Some results were made by code with uncommitted changes.")
    notes += [f"The training curve of {row.name} is left out: {row.remark}." for row in rows if row.remark]
    notes += [f"Left out of a front: {message}." for front in fronts.values() for message in front.dropped]
    return list(dict.fromkeys(notes))
