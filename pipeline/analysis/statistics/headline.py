"""The study's answer in words: how much faster block transformers generate at equal loss, and what that rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipeline.analysis.rows import timing
from pipeline.analysis.rows.families import GENERATE, named
from pipeline.analysis.rows.groups import by_family
from pipeline.analysis.rows.points import Point, timed_points
from pipeline.analysis.statistics.ordering import Comparison
from pipeline.analysis.statistics.recipes import in_words, recipes
from pipeline.analysis.statistics.speedup import Estimate, Matched, Quality
from pipeline.results.metrics import LOSS, readable

Orderings = Mapping[str, Sequence[Comparison]]


def answers(points: list[Point], quality: Sequence[Quality], hardware: str) -> list[str]:
    """A sentence for each family of block transformers and each vanilla family that it is compared with.

    First the one of :func:`_main`, then the others of its block transformers.
    """
    timed = timed_points(points)
    if not points:
        return ["No model of the study was trained without diverging."]
    if not timed:
        return ["No model of the study is timed, so no speed-up can be stated."]
    if not quality:
        what = "trained" if len(timed) == len(points) else "trained and were timed"
        return [f"The study has only {' and '.join(by_family(timed))} models that {what}."]
    pairs = _pairs(timed, quality)
    main = _main(pairs)
    subject = main[0].matched.first
    others = sorted((pair for pair in pairs if pair is not main), key=lambda pair: pair[0].matched.first != subject)
    trained = recipes([row for point in _compared(timed, main) for row in point.rows])
    return [
        _answer(main, hardware, f" {in_words(trained)}" if trained else ""),
        *(_further(other, subject) for other in others),
    ]


def basis(points: list[Point], quality: Sequence[Quality], orderings: Orderings) -> list[str]:
    """Sentences on what the first answer rests on; the order of losses alone where no model is timed."""
    timed = timed_points(points)
    pairs = _pairs(timed, quality)
    main = [comparison for comparison in _main(pairs) if comparison.matched.best] if pairs else []
    if timed and not main:
        return []
    speeds = [_certainty(_compared(timed, main), main), *_distances(timed, main), *_range(main)] if main else []
    speeds += _beaten(points, main)
    return [sentence for sentence in [*speeds, _order(orderings)] if sentence]


def _pairs(points: list[Point], quality: Sequence[Quality]) -> list[list[Quality]]:
    """The comparisons of each two families, a setting each."""
    pairs: dict[tuple[str, str], list[Quality]] = {}
    for name in by_family(points):
        for comparison in quality:
            if comparison.matched.first == name:
                pairs.setdefault((name, comparison.matched.second), []).append(comparison)
    return list(pairs.values())


def _main(pairs: list[list[Quality]]) -> list[Quality]:
    """The best block transformers against the strongest vanilla family: that against which their ratio is the least.

    Only where there is no other pair is it one of uptrained block transformers, which had their source's training too,
    or one against transformers' ``generate``, another engine.
    """
    known = [pair for pair in pairs if any(comparison.matched.reach for comparison in pair)] or pairs
    ours = [pair for pair in known if not pair[0].matched.second.endswith(GENERATE)] or known
    alike = [pair for pair in ours if not pair[0].matched.first.startswith("uptrained")] or ours
    best: dict[str, list[Quality]] = {}
    for pair in alike:
        other = pair[0].matched.second
        best[other] = max(best.get(other, pair), pair, key=_advantage)
    return min(best.values(), key=lambda pair: _advantage(pair)[1])


def _advantage(compared: list[Quality]) -> tuple[bool, float]:
    """Whether a ratio can be stated in any setting, and the least over the settings."""
    stated = any(comparison.matched.best for comparison in compared)
    return stated, min(_ratio(comparison.matched) for comparison in compared)


def _ratio(matched: Matched) -> float:
    """The ratio at the lowest loss that both reach.

    0 where the block transformers do not come down to the vanilla family's losses, infinite where it does not come down
    to theirs, or one has no numbers.
    """
    if matched.best:
        return matched.best.value
    below = matched.reach and matched.reach[0][0] > matched.reach[1][1]
    return 0.0 if below else math.inf


def _compared(points: list[Point], main: list[Quality]) -> list[Point]:
    families = by_family(points)
    return [point for name in (main[0].matched.first, main[0].matched.second) for point in families.get(name, [])]


def _answer(compared: list[Quality], hardware: str, recipe: str) -> str:
    loss, gains = _gains(compared)
    if not gains:
        return f"No speed-up at equal loss can be stated{recipe}: {_reasons(compared)}."
    gains[0] = gains[0].replace(" times", f" times as fast as {named(compared[0].matched.second)}", 1)
    subject = named(compared[0].matched.first)
    answer = f"{subject} generate {_listed(gains)}, on {hardware}{recipe and ','}{recipe}."
    return f"At the lowest loss that both families reach{loss}, {answer}{_missing(compared)}"


def _further(compared: list[Quality], main: str) -> str:
    """The same in short, with its subject where that is not the ``main`` family."""
    loss, gains = _gains(compared)
    first, second = compared[0].matched.first, compared[0].matched.second
    against = f"against {named(second)}" if first == main else f"{named(first)} against {named(second)}"
    against = against[0].upper() + against[1:]
    if not gains:
        return f"{against}: no speed-up at equal loss can be stated; {_reasons(compared)}."
    gains[0] = gains[0].replace(" times", " times as fast", 1)
    return f"{against}{loss}: {_listed(gains)}.{_missing(compared)}"


def _gains(compared: list[Quality]) -> tuple[str, list[str]]:
    """The loss, where all settings have the same, and the ratio in each setting that has one."""
    bests = [(comparison.setting, comparison.matched.best) for comparison in compared if comparison.matched.best]
    one_loss = len({best.at for _, best in bests}) == 1
    loss = f" ({bests[0][1].at:.3f} nats per token)" if one_loss else ""
    return loss, [_gain(setting, best, at_its_own_loss=not one_loss) for setting, best in bests]


def _missing(compared: list[Quality]) -> str:
    return "".join(
        f" No speed-up can be stated in the {readable(comparison.setting)} setting: {_reason(comparison)}."
        for comparison in compared
        if not comparison.matched.best
    )


def _reasons(compared: list[Quality]) -> str:
    return "; ".join(dict.fromkeys(_reason(comparison) for comparison in compared))


def _reason(comparison: Quality) -> str:
    """The two losses that keep both families apart, or what else is missing."""
    matched = comparison.matched
    if not matched.reach:
        return matched.remark
    sides = zip(matched.reach, (named(matched.first), named(matched.second)), strict=True)
    (better, low), (worse, high) = ((name, losses) for losses, name in sorted(sides))
    return (
        f"the lowest loss of {worse} is {high[0]:.3f} nats per token, above the highest on the front of {better}, "
        f"{low[1]:.3f}"
    )


def _gain(setting: str, best: Estimate, at_its_own_loss: bool) -> str:
    loss = [f"loss {best.at:.3f}"] if at_its_own_loss else []
    known = best.low is not None and best.high is not None
    interval = [f"95 % interval {best.low:.3g} to {best.high:.3g}"] if known else []
    details = f" ({', '.join(loss + interval)})" if loss or interval else ""
    return f"{best.value:.3g} times in the {readable(setting)} setting{details}"


def _certainty(points: list[Point], main: list[Quality]) -> str:
    """How many seeds there are, and what the intervals take in."""
    counts = {len(point.rows) for point in points}
    rows = [row for point in points for row in point.rows]
    repeats = min(timing.repeats(row, comparison.matched.measured) for row in rows for comparison in main)
    known = (max(counts) > 1, all(row.evaluate.nats_by_document for row in rows), repeats > 1)
    seeds = "seeds" if min(counts) > 1 else "seeds of the models that have several"
    taken_in = (seeds, "test documents", f"the {repeats} repeats of each timing")
    covered = [part for part, there in zip(taken_in, known, strict=True) if there]
    missing = ("other seeds", "test documents", "repeats of a timing")
    left = [part for part, there in zip(missing, known, strict=True) if not there]
    trained = "once" if max(counts) == 1 else f"with {' to '.join(map(str, sorted({min(counts), max(counts)})))} seeds"
    if not any(comparison.matched.best and comparison.matched.best.low for comparison in main):
        return f"Each model was trained {trained}, and there is no interval."
    lacking = f", but not {_listed(left)}" if left else ""
    return f"Each model was trained {trained}; the intervals take in {_listed(covered)}{lacking}."


def _distances(points: list[Point], main: list[Quality]) -> list[str]:
    """Between how distant models the ratio's other side is interpolated."""
    told: dict[str, list[str]] = {}
    for comparison in main:
        matched, best = comparison.matched, comparison.matched.best
        assert best is not None
        anchored = any(point.name == best.anchor for point in by_family(points).get(matched.first, []))
        other = named(matched.second if anchored else matched.first)
        how = f"interpolated between models {best.gap:.2f} nats apart" if best.gap else "a trained model's"
        told.setdefault(f"The speed of {other} at that loss is {how}", []).append(readable(comparison.setting))
    one = len(told) == 1
    return [f"{sentence}{'' if one else f' ({_listed(settings)})'}." for sentence, settings in told.items()]


def _range(main: list[Quality]) -> list[str]:
    """That the ratio is the greatest one, where it is, with the least one."""
    settings = []
    for comparison in main:
        estimates = comparison.matched.estimates
        least = min(estimates, key=lambda estimate: estimate.value)
        if len(estimates) > 1 and estimates[0].value == max(estimate.value for estimate in estimates):
            settings.append(f"{readable(comparison.setting)}, where the least is {least.value:.3g} at {least.at:.3f}")
    return [f"It is the greatest ratio at any loss that both reach in {_listed(settings)}."] if settings else []


def _beaten(points: list[Point], main: list[Quality]) -> list[str]:
    """That the smallest of several sizes of vanilla transformers beats a loss that was compared at, where it does."""
    losses: dict[int, list[tuple[float, str]]] = {}
    for point in points:
        if point.cell.family == "vanilla" and (loss := LOSS.of(point)) is not None:
            losses.setdefault(point.rows[0].pretrain.non_embedding_parameters, []).append((loss, point.name))
    if len(losses) < 2:
        return []
    least, name = min(losses[min(losses)])
    compared = max((comparison.matched.best.at for comparison in main if comparison.matched.best), default=least)
    if compared <= least:
        return []
    told = f"{name} has {least:.3f} nats per token, below {compared:.3f}"
    return [f"A vanilla transformer of the smallest size beats that loss ({told}), so that the ratio says little."]


def _order(orderings: Orderings) -> str:
    """Whether block lengths are ordered as in the paper."""
    rates = [
        comparison for key, order in orderings.items() if key.endswith("tokens_per_second") for comparison in order
    ]
    parts = [
        f"{sum(comparison.holds for comparison in order)} of {len(order)} comparisons of {what}"
        for what, order in (("loss", orderings.get(LOSS.key, [])), ("speed", rates))
        if order
    ]
    return f"Neighbouring block lengths are ordered as in the paper in {_listed(parts)}." if parts else ""


def _listed(texts: list[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
