"""The report's static figures, all of them; here those of speed-ups and scaling fits, the others in modules beside."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.analysis.figures.ablations import ablation_figures
from pipeline.analysis.figures.along import along_figures
from pipeline.analysis.figures.canvas import (
    Drawing,
    Figures,
    band,
    bars,
    directed,
    legend,
    line,
    log_axis,
    name_axes,
    panels,
    save,
)
from pipeline.analysis.figures.copying import copy_figures
from pipeline.analysis.figures.fronts import front_figures, located, spread
from pipeline.analysis.figures.losses import loss_figures
from pipeline.analysis.figures.speed import speed_figures
from pipeline.analysis.figures.style import (
    MARKERS,
    RC,
    VANILLA,
    SeriesStyle,
    attention_of,
    family_style,
    series_styles,
    short,
)
from pipeline.analysis.figures.training import training_figures
from pipeline.analysis.rows.families import slug
from pipeline.analysis.rows.groups import by_family, contenders
from pipeline.analysis.rows.points import Point, Row, trained_points, whole_points
from pipeline.analysis.statistics.findings import Findings
from pipeline.analysis.statistics.scaling import IsoFlop, Scaling, SeriesLaw
from pipeline.analysis.statistics.speedup import Matched, Quality
from pipeline.results.metrics import LOSS, PARAMETERS, readable
from pipeline.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY_ROWS = 24  # from which drawing takes longer than starting processes does
MOST_PROCESSES = 4
BEYOND = 4.0  # how far past its points a fitted law is drawn, as a ratio


@dataclass(frozen=True)
class Part:
    """Figures that stand together, and the place of their kind on the page. None is made before it is asked for."""

    place: int
    figures: Figures


@contextmanager
def drawing(study: Study, rows: list[Row], folder: Path) -> Iterator[Callable[[Findings], list[Drawing]]]:
    """Draw while the block analyses the rows; what it gets draws the rest, and has all figures in the page's order.

    Of few rows, and elsewhere than on Linux, nothing is drawn before the findings are there.
    """
    parts = _of_results(study, rows)
    if (os.cpu_count() or 1) == 1 or len(rows) < MANY_ROWS or sys.platform != "linux":
        yield lambda findings: _in_order(parts, [_draw(part, folder) for part in parts], findings, folder)
        return
    forked = multiprocessing.get_context("fork")  # hands over what pickle cannot: the metrics' functions
    with ProcessPoolExecutor(min(os.cpu_count() or 1, MOST_PROCESSES), forked, _keep, (parts,)) as pool:
        drawn = [pool.submit(_draw_kept, number, folder) for number in range(len(parts))]
        try:
            yield lambda findings: _in_order(parts, (future.result() for future in drawn), findings, folder)
        finally:
            pool.shutdown(cancel_futures=True)


def _in_order(parts: list[Part], drawn: Iterable[list[Drawing]], findings: Findings, folder: Path) -> list[Drawing]:
    analysed = [(part.place, _draw(part, folder)) for part in _of_findings(findings)]
    places = [*zip((part.place for part in parts), drawn, strict=True), *analysed]
    return [figure for _, figures in sorted(places, key=lambda drawn: drawn[0]) for figure in figures]


def _draw(part: Part, folder: Path) -> list[Drawing]:
    from matplotlib import rc_context

    with rc_context(RC):
        return [save(figure, drawing, folder) for figure, drawing in part.figures]


_kept: list[Part]


def _keep(parts: list[Part]) -> None:
    global _kept
    _kept = parts


def _draw_kept(number: int, folder: Path) -> list[Drawing]:
    return _draw(_kept[number], folder)


def figures(study: Study, findings: Findings) -> Figures:
    """Every figure, in the page's order."""
    parts = _of_results(study, findings.rows) + _of_findings(findings)
    for part in sorted(parts, key=lambda part: part.place):
        yield from part.figures


def _of_results(study: Study, rows: list[Row]) -> list[Part]:
    """What is drawn of the results alone."""
    trained = trained_points(rows)
    points = whole_points(trained)
    if not points:
        return []
    last = [*loss_figures(points), along_figures(points), copy_figures(points), *speed_figures(points)]
    return [
        *(Part(0, figures) for figures in front_figures(points)),
        Part(2, ablation_figures(study, points)),
        *(Part(4, figures) for figures in (training_figures(trained), *last)),
    ]


def _of_findings(findings: Findings) -> list[Part]:
    """What the analysis is needed for."""
    points = findings.points
    laws, optima = _laws(points, findings.scaling), _optima(points, findings.scaling)
    return [Part(1, _ratios(points, findings.quality)), Part(3, laws), Part(3, optima)] if points else []


def _ratios(points: list[Point], quality: list[Quality]) -> Figures:
    """The speed-up over each vanilla family at every loss that both reach, a panel per setting."""
    drawn = [comparison for comparison in quality if comparison.matched.estimates]
    styles, families = _contender_styles(points), by_family(points)
    for reference in dict.fromkeys(comparison.matched.second for comparison in drawn):
        compared = [comparison for comparison in drawn if comparison.matched.second == reference]
        settings = list(dict.fromkeys(comparison.setting for comparison in compared))
        figure, axes = panels(len(settings))
        for panel, setting in zip(axes, settings, strict=True):
            for matched in (comparison.matched for comparison in compared if comparison.setting == setting):
                _draw_ratio(panel, matched, styles[matched.first], 2.4 if matched.first in families else 1.2)
            panel.axhline(1, color=VANILLA, linewidth=1, linestyle=":", label=f"as fast as {reference}")
            panel.set_title(f"{readable(setting)} generation")
            panel.set_xlabel(directed(LOSS))
            log_axis(panel, "y")
        axes[0].set_ylabel(f"Tokens/s relative to {reference} (better \N{RIGHTWARDS ARROW})")
        legend(figure, *axes)
        told = "Ratios of tokens per second along both families' fronts, with 95 % intervals where there are any."
        yield figure, Drawing(f"speedup_{slug(reference)}", f"Speed at equal loss, against {reference}", told)


def _contender_styles(points: list[Point]) -> dict[str, SeriesStyle]:
    """One block length as its series, a family over all of them in the family's colour."""
    styles = series_styles(points)
    groups = contenders(points)
    families = [name for name, members in groups.items() if members[0].family == name]
    whole = {name: SeriesStyle(family_style(name)[0], MARKERS[attention_of(name)][0]) for name in families}
    return {name: styles[members[0].series] for name, members in groups.items()} | whole


def _draw_ratio(axes: Axes, matched: Matched, style: SeriesStyle, width: float) -> None:
    line(axes, [(estimate.at, estimate.value) for estimate in matched.estimates], style, matched.first, linewidth=width)
    known = [estimate for estimate in matched.estimates if estimate.low is not None and estimate.high is not None]
    low, high = [estimate.low or 0.0 for estimate in known], [estimate.high or 0.0 for estimate in known]
    band(axes, [estimate.at for estimate in known], low, high, style.colour, matched.first)


def _laws(points: list[Point], scaling: Scaling) -> Figures:
    """Loss against size, compute or tokens with the fitted laws, drawn thin where they extrapolate."""
    styles = series_styles(points)
    for x in dict.fromkeys(law.x for law in scaling.laws):
        laws = [law for law in scaling.laws if law.x is x]
        figure, (axes,) = panels(1, width=7.6, height=4.6)
        for law in laws:
            pairs = [located(point, x, LOSS) for point in law.points]
            line(axes, pairs, styles[law.series], law.series + law.at, linestyle="none")
            bars(axes, (spread(point, x, LOSS) for point in law.points), styles[law.series].colour, law.series + law.at)
            _draw_law(axes, law, styles[law.series].colour)
        name_axes(axes, x, LOSS)
        log_axis(axes, "x")
        legend(figure, axes)
        title = f"Loss against {x.label.lower()}"
        axes.set_title(title)
        told = "; ".join(f"{law.series}{law.at}: exponent {law.law.exponent}" for law in laws)
        yield figure, Drawing(f"scaling_{x.key}", title, f"Power laws with an offset, dotted past the points. {told}.")


def _draw_law(axes: Axes, law: SeriesLaw, colour: str) -> None:
    import numpy as np

    for low, high, dashes in ((law.law.low, law.law.high, "-"), (law.law.high, BEYOND * law.law.high, ":")):
        x = np.geomspace(low, high, 40)
        predicted = [law.law.predict(float(value)) for value in x]
        axes.plot(
            x, [loss.value for loss in predicted], dashes, color=colour, linewidth=1.2, label=f"_{law.series}{law.at}"
        )
        bounds = [loss.low for loss in predicted], [loss.high for loss in predicted]
        band(axes, x.tolist(), *bounds, colour, law.series + law.at)


def _optima(points: list[Point], scaling: Scaling) -> Figures:
    """Loss against parameters at equal training FLOPs (paper, figure 4c), a panel per budget."""
    if not scaling.optima:
        return
    styles = series_styles(points)
    budgets = list(dict.fromkeys(short(optimum.budget) for optimum in scaling.optima))
    figure, axes = panels(len(budgets))
    for panel, budget in zip(axes, budgets, strict=True):
        for optimum in (optimum for optimum in scaling.optima if short(optimum.budget) == budget):
            pairs = sorted(located(point, PARAMETERS, LOSS) for point in optimum.points)
            line(panel, pairs, styles[optimum.series], optimum.series, linestyle="none")
            _draw_parabola(panel, optimum, styles[optimum.series].colour)
        panel.set_title(f"{budget} FLOPs")
        panel.set_xlabel(directed(PARAMETERS))
        log_axis(panel, "x")
    axes[0].set_ylabel(directed(LOSS))
    legend(figure, *axes)
    told = "; ".join(
        f"{o.series} at {short(o.budget)}: {short(o.fit.optimum.value)} parameters" for o in scaling.optima
    )
    yield (
        figure,
        Drawing("isoflop", "Loss at equal training FLOPs", f"Parabolas in the size's logarithm. Optima: {told}."),
    )


def _draw_parabola(axes: Axes, optimum: IsoFlop, colour: str) -> None:
    import numpy as np

    sizes = [PARAMETERS.of(point) or 1.0 for point in optimum.points]
    x = np.geomspace(min(sizes), max(sizes), 60)
    axes.plot(x, optimum.fit.at(x), "--", color=colour, linewidth=1.2, label=f"_{optimum.series}")
    if min(sizes) <= optimum.fit.optimum.value <= max(sizes):
        axes.axvline(optimum.fit.optimum.value, color=colour, linestyle=":", linewidth=1, label=f"_{optimum.series}")
