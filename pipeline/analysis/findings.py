"""What the results say: fronts, speed at equal quality and cost, the order of block lengths, and what limits them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.analysis import ordering, pareto, speedup
from pipeline.analysis.metrics import LOSS, TRAINING_FLOPS, Metric, limit_metric, readable, setting_metric, settings_of
from pipeline.analysis.ordering import Comparison
from pipeline.analysis.pareto import Front
from pipeline.analysis.scaling import Scaling, scale
from pipeline.analysis.speedup import Matched
from pipeline.analysis.table import Point, Row, points, series_of
from pipeline.results import Environment

NOISY = 0.2  # (max - min) / median of the timings from which a note warns


@dataclass(frozen=True)
class Quality:
    """A family's speed-up over vanilla at equal loss, in one setting; ``limits`` compares their rooflines instead."""

    family: str
    setting: str
    matched: Matched
    limits: Matched


@dataclass(frozen=True)
class Findings:
    """Everything that the report states, computed once.

    ``fronts`` is keyed by setting (loss and tokens/s), ``{setting}_memory`` (loss and bytes a sample) and
    ``{setting}_all`` (all three); ``hypervolumes`` by setting; ``orderings`` by metric key. ``quality`` compares block
    transformers, and uptrained ones where there are, with vanilla ones in each setting.
    """

    rows: list[Row]
    points: list[Point]
    settings: list[str]
    fronts: dict[str, Front]
    hypervolumes: dict[str, dict[str, float]]
    quality: list[Quality]
    costs: list[Matched]
    orderings: dict[str, list[Comparison]]
    scaling: Scaling
    notes: list[str]
    headline: str


def find(rows: list[Row]) -> Findings:
    """Analyze a study's rows. Cells whose training diverged are in the table alone."""
    kept = points([row for row in rows if not row.pretrain.diverged])
    settings = settings_of(rows)
    fronts = _fronts(kept, settings)
    quality = _at_equal_quality(kept, settings)
    rates = [setting_metric(setting, "tokens_per_second") for setting in settings]
    return Findings(
        rows=rows,
        points=kept,
        settings=settings,
        fronts=fronts,
        hypervolumes={setting: _hypervolumes(kept, setting) for setting in settings},
        quality=quality,
        costs=_at_equal_cost(kept, settings),
        orderings=_orderings(kept, rates),
        scaling=scale(kept),
        notes=_notes(rows, fronts),
        headline=_headline(kept, quality),
    )


def hardware(rows: list[Row]) -> str:
    """The devices that generation was measured on, in words."""
    devices = dict.fromkeys(_describe(row.benchmark.environment) for row in rows)
    return " and ".join(devices)


def environments(rows: list[Row]) -> list[tuple[str, Environment, int]]:
    """(stage, environment, number of cells) for each distinct one."""
    used = [(stage, getattr(row, stage).environment) for stage in ("pretrain", "evaluate", "benchmark") for row in rows]
    return [(stage, environment, used.count((stage, environment))) for stage, environment in dict.fromkeys(used)]


def _orderings(kept: list[Point], rates: list[Metric]) -> dict[str, list[Comparison]]:
    found = {metric.key: ordering.compare(kept, metric) for metric in (LOSS, *rates)}
    allocations = ordering.compare_best_allocations(kept)
    return found | ({ordering.SHARE.key: allocations} if allocations else {})


def _fronts(kept: list[Point], settings: list[str]) -> dict[str, Front]:
    fronts = {}
    for setting in settings:
        rate, memory = (setting_metric(setting, field) for field in ("tokens_per_second", "bytes_per_sample"))
        fronts[setting] = pareto.front(kept, (LOSS, rate))
        fronts[f"{setting}_memory"] = pareto.front(kept, (LOSS, memory))
        fronts[f"{setting}_all"] = pareto.front(kept, (LOSS, rate, memory))
    return fronts


def _hypervolumes(kept: list[Point], setting: str) -> dict[str, float]:
    """What each family's front covers, in nats times doublings of tokens/s, up to the worst of all points in each."""
    import numpy as np

    rate = setting_metric(setting, "tokens_per_second")
    complete = [point for point in kept if LOSS.of(point) is not None and rate.of(point) is not None]
    values = np.array([[LOSS.of(point), rate.of(point)] for point in complete], float).reshape(-1, 2)
    values[:, 1] = np.log2(values[:, 1])
    if not complete:
        return {}
    worst = (values[:, 0].max(), values[:, 1].min())
    families = np.array([point.family for point in complete])
    return {
        family: pareto.hypervolume(values[families == family], worst, (True, False))
        for family in dict.fromkeys(families.tolist())
    }


def _at_equal_quality(kept: list[Point], settings: list[str]) -> list[Quality]:
    families = {point.family for point in kept}
    sides = {family: (family, [point for point in kept if point.family == family]) for family in families}
    if "vanilla" not in families:
        return []

    def compare(family: str, rate: Metric) -> Matched:
        return speedup.at_equal_quality(sides[family], sides["vanilla"], LOSS, rate)

    return [
        Quality(
            family,
            name,
            compare(family, setting_metric(name, "tokens_per_second")),
            compare(family, limit_metric(name)),
        )
        for family in ("block", "uptrained")
        if family in families
        for name in settings
    ]


def _at_equal_cost(kept: list[Point], settings: list[str]) -> list[Matched]:
    """Each block series against vanilla: tokens/s and loss at equal training FLOPs and at equal bytes a sample."""
    vanilla = [point for point in kept if point.family == "vanilla"]
    matched = []
    for name in series_of(kept):
        mine = [point for point in kept if point.series == name]
        if not vanilla or mine[0].family not in ("block", "uptrained"):
            continue
        sides = (name, mine), ("vanilla", vanilla)
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
    devices = {_describe(row.benchmark.environment) for row in rows}
    if len(devices) > 1:
        notes.append(
            f"Generation was measured on different hardware ({'; '.join(sorted(devices))}), so tokens/s do not compare."
        )
    diverged = [row.name for row in rows if row.pretrain.diverged]
    if diverged:
        notes.append(f"Training diverged, so these take part in no comparison: {', '.join(diverged)}.")
    poor = [row.name for row in rows if not row.evaluate.loss < row.evaluate.unigram_loss]
    if poor:
        notes.append(f"No better than the unigram baseline: {', '.join(poor)}.")
    noisy = [
        f"{row.name} {readable(setting)} {measured.spread:.0%}"
        for row in rows
        for setting, measured in row.benchmark.settings.items()
        if measured.spread > NOISY
    ]
    if noisy:
        notes.append(f"Timings that spread by more than {NOISY:.0%} between repeats: {', '.join(noisy)}.")
    for note in dict.fromkeys(note for row in rows for note in row.benchmark.notes):
        notes.append(f"Benchmark of {', '.join(row.name for row in rows if note in row.benchmark.notes)}: {note}.")
    if any(environment.dirty for _, environment, _ in environments(rows)):
        notes.append("Some results were made by code with uncommitted changes.")
    notes += [f"Left out of a front: {message}." for front in fronts.values() for message in front.dropped]
    return list(dict.fromkeys(notes))


def _headline(kept: list[Point], quality: list[Quality]) -> str:
    """The study's answer: how much faster block transformers generate at equal loss."""
    if not kept:
        return "No model of the study was trained without diverging."
    if not quality:
        return f"The study has only {' and '.join(sorted({point.family for point in kept}))} models that trained."
    family = quality[0].family
    compared = [each for each in quality if each.family == family]
    found = [(each.setting, each.matched.best) for each in compared if each.matched.best]
    if not found:
        reasons = dict.fromkeys(each.matched.remark for each in compared)
        return f"No speed-up at equal quality can be stated: {'; '.join(reasons)}."
    one_loss = len({best.at for _, best in found}) == 1
    loss = f" ({found[0][1].at:.3f} nats a token)" if one_loss else ""
    gains = [_gain(setting, best, at_its_own_loss=not one_loss) for setting, best in found]
    gains[0] = gains[0].replace(" times", " times as fast as vanilla transformers", 1)
    missing = "".join(
        f" None can be stated for {readable(each.setting)}: {each.matched.remark}."
        for each in compared
        if not each.matched.best
    )
    name = "block transformers" if family == "block" else "uptrained block transformers"
    measured = hardware([row for point in kept for row in point.rows])
    answer = f"{name} generate {' and '.join(gains)}, on {measured}."
    return f"At the lowest loss that both families reach{loss}, {answer}{missing}"


def _gain(setting: str, best: speedup.Estimate, at_its_own_loss: bool) -> str:
    loss = [f"loss {best.at:.3f}"] if at_its_own_loss else []
    known = best.low is not None and best.high is not None
    interval = [f"95 % interval {best.low:.3g} to {best.high:.3g}"] if known else []
    details = f" ({', '.join(loss + interval)})" if loss or interval else ""
    return f"{best.value:.3g} times in the {readable(setting)} setting{details}"


def _describe(environment: Environment) -> str:
    threads = f", {environment.threads} threads" if environment.threads > 1 else ""
    return f"{environment.device}{threads}, {environment.precision}"
