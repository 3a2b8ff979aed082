"""The study's answer in words: how much faster block transformers generate at equal loss."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.analysis.rows.families import named
from pipeline.analysis.rows.groups import by_family
from pipeline.analysis.rows.points import Point
from pipeline.analysis.statistics.recipes import in_words, recipes
from pipeline.analysis.statistics.speedup import Estimate, Quality
from pipeline.results.metrics import readable


def answers(points: list[Point], quality: Sequence[Quality], hardware: str) -> list[str]:
    """A sentence for each family of block transformers and each vanilla family that it is compared with."""
    if not points:
        return ["No model of the study was trained without diverging."]
    families = by_family(points)
    if not quality:
        return [f"The study has only {' and '.join(families)} models that trained."]
    pairs: dict[tuple[str, str], list[Quality]] = {}
    for name in families:
        for comparison in quality:
            if comparison.matched.first == name:
                pairs.setdefault((name, comparison.matched.second), []).append(comparison)
    main, *others = pairs.values()
    compared = [point for name in (main[0].matched.first, main[0].matched.second) for point in families.get(name, [])]
    trained = recipes([row for point in compared for row in point.rows])
    return [
        _answer(main, hardware, f" {in_words(trained)}" if trained else ""),
        *(_further(other, main[0].matched.first) for other in others),
    ]


def _answer(compared: list[Quality], hardware: str, recipe: str) -> str:
    loss, gains = _gains(compared)
    if not gains:
        return f"No speed-up at equal quality can be stated{recipe}: {_reasons(compared)}."
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
        return f"{against}: no speed-up at equal quality can be stated; {_reasons(compared)}."
    return f"{against}{loss}: {_listed(gains)}.{_missing(compared)}"


def _gains(compared: list[Quality]) -> tuple[str, list[str]]:
    """The loss, where all settings have the same, and the ratio in each setting that has one."""
    bests = [(comparison.setting, comparison.matched.best) for comparison in compared if comparison.matched.best]
    one_loss = len({best.at for _, best in bests}) == 1
    loss = f" ({bests[0][1].at:.3f} nats a token)" if one_loss else ""
    return loss, [_gain(setting, best, at_its_own_loss=not one_loss) for setting, best in bests]


def _missing(compared: list[Quality]) -> str:
    return "".join(
        f" None can be stated for {readable(comparison.setting)}: {comparison.matched.remark}."
        for comparison in compared
        if not comparison.matched.best
    )


def _reasons(compared: list[Quality]) -> str:
    return "; ".join(dict.fromkeys(comparison.matched.remark for comparison in compared))


def _gain(setting: str, best: Estimate, at_its_own_loss: bool) -> str:
    loss = [f"loss {best.at:.3f}"] if at_its_own_loss else []
    known = best.low is not None and best.high is not None
    interval = [f"95 % interval {best.low:.3g} to {best.high:.3g}"] if known else []
    details = f" ({', '.join(loss + interval)})" if loss or interval else ""
    return f"{best.value:.3g} times in the {readable(setting)} setting{details}"


def _listed(texts: list[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
