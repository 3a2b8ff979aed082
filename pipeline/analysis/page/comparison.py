"""Studies beside each other as one page, tables and a CSV file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.analysis.figures.style import COLOURS
from pipeline.analysis.page import vega
from pipeline.analysis.page.tables import TextTable, csv_text, format_number
from pipeline.analysis.page.templates import filled
from pipeline.analysis.statistics.compare import (
    RATE,
    Entry,
    Side,
    Verdict,
    common_settings,
    differing,
    front_names,
    metrics_of,
    verdict,
)
from pipeline.results.metrics import Metric, readable, setting_metric

BEATEN = 0.35


def models_table(sides: Sequence[Side], brief: bool = False) -> TextTable:
    """Every model of every study, those of one name beneath each other; ``brief``: with its main numbers alone."""
    metrics = metrics_of(sides, brief)
    rows = [
        (
            entry.name,
            side.label,
            str(entry.seeds),
            *(format_number(metric, entry.values.get(metric.key)) for metric in metrics),
        )
        for side, entry in _by_name(sides)
    ]
    return TextTable("Models", ("model", "study", "seeds", *(metric.label for metric in metrics)), rows)


def shared_table(sides: Sequence[Side], by: Verdict) -> TextTable:
    """The models that a study shares with the first one: the differences in quality, the ratios of speeds."""
    first, *others = sides
    known = {entry.name: entry for entry in first.entries}
    rates = [setting_metric(setting, RATE) for setting in common_settings(sides)]
    rows = [
        (entry.name, f"{side.label} against {first.label}", *_against(entry, known[entry.name], by, rates))
        for side in others
        for entry in side.entries
        if entry.name in known
    ]
    head = ("model", "compared", f"{by.measure.label}, difference", *(f"{rate.label}, ratio" for rate in rates))
    return TextTable("Models of the same name", head, rows)


def _against(entry: Entry, other: Entry, by: Verdict, rates: Sequence[Metric]) -> list[str]:
    def shown(metric: Metric, compared: Callable[[float, float], str]) -> str:
        pair = entry.values.get(metric.key), other.values.get(metric.key)
        return "-" if pair[0] is None or pair[1] is None else compared(pair[0], pair[1])

    difference = shown(by.measure, lambda one, two: f"{one - two:+.4f}") if by.compares else "-"
    return [difference, *(shown(rate, lambda one, two: f"{one / two:.3g}") for rate in rates)]


def keys_table(sides: Sequence[Side]) -> TextTable:
    """The keys of params.yaml that differ."""
    rows = [(key, *values) for key, values in differing(sides)]
    return TextTable("Keys that differ", ("key", *(side.label for side in sides)), rows)


def models_csv(sides: Sequence[Side]) -> str:
    """Every model of every study with its numbers in SI units; one that it lacks is empty."""
    metrics = metrics_of(sides)
    records = (
        [side.label, entry.name, entry.series, entry.seeds, *(entry.values.get(metric.key) for metric in metrics)]
        for side, entry in _by_name(sides)
    )
    return csv_text(["study", "model", "series", "seeds", *(metric.key for metric in metrics)], records)


def _by_name(sides: Sequence[Side]) -> list[tuple[Side, Entry]]:
    names = dict.fromkeys(entry.name for side in sides for entry in side.entries)
    found = {(side.label, entry.name): (side, entry) for side in sides for entry in side.entries}
    return [found[side.label, name] for name in names for side in sides if (side.label, name) in found]


def render_comparison(sides: Sequence[Side]) -> str:
    """The page as HTML: what to know first, the plot, the models, the keys that differ. It needs no network."""
    by = verdict(sides)
    spec = chart(sides, by.measure)
    return filled(
        "comparison.html",
        library=vega.library() if spec else "",
        spec=vega.packed(json.dumps(spec)),
        drawn=bool(spec),
        studies=[side.label for side in sides],
        measure=by.measure.label,
        warnings=by.warnings,
        missing=[f"{side.label}: {lacking}" for side in sides for lacking in side.missing],
        tables=[shared_table(sides, by), models_table(sides), keys_table(sides)],
    )


def chart(sides: Sequence[Side], measure: Metric) -> dict[str, Any]:
    """Quality against tokens per second as Vega-Lite, a panel per setting; nothing where no model has both.

    Colour tells the study, shape the family and block length. A line joins a study's front; other points are faint.
    """
    import altair as alt

    records = [record for side in sides for record in _places(side, measure)]
    if not records:
        return {}
    labels = [side.label for side in sides]
    series, settings = (list(dict.fromkeys(record[name] for record in records)) for name in ("series", "setting"))
    colour = alt.Color(
        "study:N", scale=alt.Scale(domain=labels, range=list(COLOURS[: len(labels)])), legend=alt.Legend(labelLimit=300)
    )
    x = alt.X("rate:Q", title="tokens per second", scale=alt.Scale(type="log", nice=False, padding=20))
    y = alt.Y("quality:Q", title=f"{measure.label}, lower is better", scale=alt.Scale(zero=False, padding=20))
    tips = [alt.Tooltip(f"{name}:N") for name in ("study", "model", "seeds")]
    numbers = [alt.Tooltip("rate:Q", format=",.0f"), alt.Tooltip("quality:Q", format=".4f")]
    base = alt.Chart().encode(x=x, y=y, color=colour)
    lines = base.mark_line(strokeWidth=1.5).transform_filter("datum.front").encode(order="rate:Q")
    marks = base.mark_point(filled=True, size=80).encode(
        shape=alt.Shape("series:N", scale=alt.Scale(domain=series), legend=alt.Legend(labelLimit=300)),
        opacity=alt.condition("datum.front", alt.value(1.0), alt.value(BEATEN)),
        tooltip=[*tips, *numbers],
    )
    data = alt.InlineData(values=records)
    panels = alt.layer(lines, marks, data=data).properties(width=420, height=340)
    made: dict[str, Any] = (
        panels.facet(facet=alt.Facet("setting:N", title=None, sort=settings), columns=2)
        .resolve_scale(x="independent")
        .configure(background="#ffffff", padding=12)
        .to_dict()
    )
    return made


def _places(side: Side, measure: Metric) -> list[dict[str, Any]]:
    records = []
    for setting in side.settings:
        rate, front = setting_metric(setting, RATE), front_names(side, setting, measure)
        records += [
            {
                "study": side.label,
                "model": entry.name,
                "series": entry.series,
                "seeds": entry.seeds,
                "setting": readable(setting),
                "rate": entry.values[rate.key],
                "quality": entry.values[measure.key],
                "front": entry.name in front,
            }
            for entry in side.entries
            if rate.key in entry.values and measure.key in entry.values
        ]
    return records
