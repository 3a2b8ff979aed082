"""The self-contained HTML page: no network, readable without scripts, every string escaped by the template engine."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.analysis.figures import style
from pipeline.analysis.figures.canvas import Drawing
from pipeline.analysis.figures.draw import BEYOND
from pipeline.analysis.figures.interactive import DASHES
from pipeline.analysis.page import recipes, vega
from pipeline.analysis.page.tables import (
    IDENTITY,
    Line,
    TextTable,
    identity,
    lines,
    main_metrics,
    marked,
    summary_metrics,
)
from pipeline.analysis.page.templates import FOLDER, filled
from pipeline.analysis.rows import timing
from pipeline.analysis.statistics import ordering
from pipeline.analysis.statistics.findings import Findings, environments
from pipeline.analysis.statistics.scaling import held_out_in_words
from pipeline.analysis.statistics.seeds import Contrast
from pipeline.analysis.statistics.speedup import Estimate, Matched, Quality
from pipeline.results.metrics import LOSS, all_metrics, readable, setting_metric
from pipeline.study import Study

ANSWERS = ("throughput_", "speedup_")
"""How the names of figures begin that answer the study's question, those of the page's first screen first."""
MOST_PICTURES = 550_000  # characters


def render(study: Study, findings: Findings, drawings: list[Drawing], figures: Path) -> str:
    """The page as HTML, with the figures of the folder inlined as SVG."""
    from markupsafe import Markup

    first = findings.rows[0].evaluate
    return filled(
        "report.html",
        js=Markup("\n".join((FOLDER / name).read_text(encoding="utf-8") for name in ("charts.js", "report.js"))),
        templates=vega.layers(),
        library=vega.library(),
        charts=vega.packed(json.dumps({drawing.name: drawing.chart for drawing in drawings}, separators=(",", ":"))),
        study=study.name,
        question=_question(findings),
        answer=findings.answer,
        basis=" ".join(findings.basis),
        further=findings.further,
        notes=findings.notes,
        missing=TextTable(
            "Missing results",
            ("Cell", "Stage", "Why"),
            [(lacking.cell, lacking.stage, lacking.reason) for lacking in findings.missing],
        ),
        cells=len(findings.rows),
        every=len({*(row.name for row in findings.rows), *(lacking.cell for lacking in findings.missing)}),
        documents=first.documents,
        targets=f"{first.target_tokens:,}",
        unigram=f"{first.unigram_loss:.3f}",
        equal_quality=[_equal_quality(setting, findings.quality) for setting in findings.settings if findings.quality],
        equal_cost=_equal_cost(findings.costs),
        orderings=[ordering.summary(comparisons) for comparisons in findings.orderings.values()],
        figures=_figures(drawings, figures),
        recipes=recipes.section(findings),
        fits=_laws(findings),
        tests=[held_out_in_words(law) for law in findings.scaling.laws],
        predicted=_predicted(findings),
        optima=_optima(findings),
        refusals=findings.scaling.refusals,
        contrasts=_contrasts(findings),
        models=_models(findings),
        table=_cells(findings),
        samples=_samples(findings),
        environments=_environments(findings),
        configuration=_configuration(study),
        points=len(findings.compared),
        packed_data=vega.packed(json.dumps(_data(findings), separators=(",", ":"))),
    )


def _as_address(svg: str) -> str:
    """The picture as a data URI, which is shorter so than in base64."""
    return "data:image/svg+xml," + quote(re.sub(r"\s*\n\s*", " ", svg), safe=" !'()*+,-./:;=?@[]_{|}~")


def _equal_quality(setting: str, quality: list[Quality]) -> dict[str, Any]:
    """Each family against each vanilla one: at the lowest loss that both reach a table each, and at every loss."""
    title = f"{readable(setting).capitalize()} generation"
    mine = [comparison for comparison in quality if comparison.setting == setting]
    references = dict.fromkeys(comparison.matched.second for comparison in mine)
    numbers = ("Times as fast", "95 % interval", "Loss")
    every = [
        (comparison.matched.first, comparison.matched.second, estimate.anchor, *_times(estimate))
        for comparison in mine
        for estimate in comparison.matched.estimates
    ]
    return {
        "title": title,
        "lowest": [
            _lowest([comparison for comparison in mine if comparison.matched.second == name], numbers)
            for name in references
        ],
        "every": TextTable(f"{title}, at every loss", ("Family", "Against", "At the loss of", *numbers), every),
    }


def _lowest(compared: list[Quality], numbers: Sequence[str]) -> TextTable:
    rows = [
        (
            comparison.matched.first,
            *(_times(comparison.matched.best) if comparison.matched.best else ("-", "-", "-")),
            _greatest(comparison.matched),
            f"{comparison.limits.best.value:.3g}" if comparison.limits.best else "-",
            comparison.matched.remark,
        )
        for comparison in compared
    ]
    head = ("Family", *numbers, "Most, and its loss", "At the roofline", "Remark")
    width = len(head) if any(row[-1] for row in rows) else -1
    title = f"{readable(compared[0].setting).capitalize()} generation, against {compared[0].matched.second}"
    return TextTable(title, head[:width], [row[:width] for row in rows])


def _greatest(matched: Matched) -> str:
    """The greatest ratio at any loss that both reach."""
    if not matched.estimates:
        return "-"
    most = max(matched.estimates, key=lambda estimate: estimate.value)
    return f"{most.value:.3g} at {most.at:.3f}"


def _times(estimate: Estimate) -> tuple[str, str, str]:
    return f"{estimate.value:.3g}", _interval(estimate, "{:.3g}"), f"{estimate.at:.3f}"


def _equal_cost(costs: list[Matched]) -> TextTable:
    rows = []
    for matched in costs:
        shape = "{:.3g} times" if matched.measured.logarithmic else "{:+.3f}"
        ends = dict.fromkeys((*matched.estimates[:1], *matched.estimates[-1:]))
        rows += [
            (
                f"{matched.first} against {matched.second}",
                matched.equal.label,
                style.short(estimate.at),
                matched.measured.label,
                shape.format(estimate.value),
                _interval(estimate, shape),
            )
            for estimate in ends
        ]
    head = ("Series", "Equal", "At", "Compared", "Result", "95 % interval")
    return TextTable("At equal cost", head, rows)


def _laws(findings: Findings) -> TextTable:
    rows = [
        (
            f"{fitted.series}{fitted.at}",
            fitted.x.label,
            *(str(number) for number in (fitted.law.offset, fitted.law.scale, fitted.law.exponent)),
            f"{fitted.test.miss:+.3f}" if fitted.test else "-",
            f"{style.short(BEYOND * fitted.law.high)}: {fitted.law.predict(BEYOND * fitted.law.high)}",
        )
        for fitted in findings.scaling.laws
    ]
    head = ("Series", "x", "Offset", "Scale", "Exponent", "Misses the largest, left out", "Predicted loss, not trained")
    return TextTable("Loss = offset + scale · x^(-exponent), with 95 % intervals", head, rows)


def _predicted(findings: Findings) -> TextTable:
    rows = [
        (
            readable(each.setting),
            each.first,
            f"{each.second}, {style.short(each.parameters)}",
            str(each.loss),
            str(each.needed).replace("inf", "∞"),
            str(each.ratio),
        )
        for each in findings.predicted
    ]
    head = ("Setting", "Series", "Against, of so many parameters", "Loss of that", "Parameters for it", "Times as fast")
    return TextTable("Speed at equal loss that the laws predict, with 95 % intervals", head, rows)


def _optima(findings: Findings) -> TextTable:
    rows = [
        (
            optimum.series,
            style.short(optimum.budget),
            style.short(optimum.fit.optimum.value),
            f"{style.short(optimum.fit.optimum.low)} to {style.short(optimum.fit.optimum.high)}",
            f"{optimum.fit.minimum:.3f}",
            "at the edge of the sizes tried: unreliable" if optimum.fit.at_edge else "",
        )
        for optimum in findings.scaling.optima
    ]
    head = ("Series", "FLOPs", "Best non-embedding parameters", "95 % interval", "Loss there", "Remark")
    return TextTable("Best size at equal training FLOPs", head, rows)


def _interval(estimate: Estimate, shape: str) -> str:
    if estimate.low is None or estimate.high is None:
        return "-"
    return f"{shape.format(estimate.low)} to {shape.format(estimate.high)}"


def _question(findings: Findings) -> str:
    """What the study asks."""
    if findings.quality:
        return "How fast do block transformers generate at equal loss?"
    return f"What loss do these models reach{', and how fast do they generate' if findings.settings else ''}?"


def _figures(drawings: list[Drawing], figures: Path) -> list[dict[str, Any]]:
    """Each with its picture for readers without scripts, those that answer the question first, as far as they fit."""
    pictures: dict[str, str] = {}
    for drawing in sorted(drawings, key=lambda drawing: not drawing.name.startswith(ANSWERS)):
        picture = _as_address((figures / f"{drawing.name}.svg").read_text(encoding="utf-8"))
        if sum(map(len, pictures.values())) + len(picture) <= MOST_PICTURES:
            pictures[drawing.name] = picture
    shown = ("name", "title", "description", "wide")
    return [
        {key: getattr(drawing, key) for key in shown}
        | {"svg": pictures.get(drawing.name, ""), "first": drawing.name.startswith(ANSWERS[0])}
        for drawing in drawings
    ]


def _cells(findings: Findings) -> dict[str, Any]:
    metrics = all_metrics(findings.rows)
    rows = []
    for row in findings.rows:
        names: list[dict[str, Any]] = [{"text": text, "number": None} for text in identity(row)[1:]]
        numbers = [{"text": Line(row.name, [row]).shown(metric), "number": metric.value(row)} for metric in metrics]
        rows.append({"name": marked(row), "fields": names + numbers})
    main = [metric.key for metric in main_metrics(findings.rows)]
    head = [{"label": name.replace("_", " "), "main": name == IDENTITY[0]} for name in IDENTITY]
    return {"head": head + [{"label": metric.label, "main": metric.key in main} for metric in metrics], "rows": rows}


def _models(findings: Findings) -> TextTable:
    """Means and standard deviations over seeds; no row where every model has one seed."""
    metrics = summary_metrics(findings.rows)
    several = [line for line in lines(findings) if any(len(point.rows) > 1 for point in findings.trained)]
    rows = [(line.name, *map(line.shown, metrics)) for line in several]
    return TextTable(
        "Models: mean and standard deviation over seeds", ("Model", *(metric.label for metric in metrics)), rows
    )


def _contrasts(findings: Findings) -> TextTable:
    rows = [
        (
            f"size {contrast.size}: {contrast.second} against {contrast.first}",
            contrast.metric.label,
            str(contrast.seeds),
            _difference(contrast, contrast.difference),
            _difference_interval(contrast),
            _verdict(contrast),
        )
        for contrast in findings.contrasts
    ]
    head = ("Compared", "In", "Seeds", "Difference", "95 % interval", "Stands")
    return TextTable("Neighbouring block lengths, paired by seed and document", head, rows)


def _difference(contrast: Contrast, value: float) -> str:
    return f"{math.exp(value):.3g} times" if contrast.metric.logarithmic else f"{value:+.4f}"


def _difference_interval(contrast: Contrast) -> str:
    ends = (contrast.difference - contrast.margin, contrast.difference + contrast.margin)
    return " to ".join(_difference(contrast, end) for end in ends)


def _verdict(contrast: Contrast) -> str:
    if contrast.stands:
        return "yes"
    return f"no; about {contrast.needed} seeds would tell" if contrast.needed else "no; 100 seeds would not tell"


def _samples(findings: Findings) -> dict[str, list[tuple[str, str]]]:
    """(cell, continuation) by prompt."""
    by_prompt: dict[str, list[tuple[str, str]]] = {}
    for row in findings.rows:
        for sample in row.evaluate.samples:
            by_prompt.setdefault(sample.prompt, []).append((marked(row), sample.continuation))
    return by_prompt


def _environments(findings: Findings) -> TextTable:
    rows = [
        (
            stage,
            str(count),
            used.device,
            str(used.threads),
            used.precision,
            used.torch,
            used.python,
            used.revision[:12] + (" with changes" if used.dirty else ""),
        )
        for stage, used, count in environments(findings.rows)
    ]
    head = ("Stage", "Cells", "Device", "Threads", "Precision", "torch", "Python", "Revision")
    return TextTable("What measured it", head, rows)


def _configuration(study: Study) -> str:
    import yaml

    return str(yaml.safe_dump(dataclasses.asdict(study), sort_keys=False, allow_unicode=True))


def _data(findings: Findings) -> dict[str, Any]:
    """What the interactive plot shows: each configuration's mean over seeds."""
    metrics = all_metrics(findings.rows)
    setting = findings.settings[0] if findings.settings else ""
    styles = style.series_styles(findings.compared)
    return {
        "x": setting_metric(setting, "tokens_per_second").key if setting else "non_embedding_parameters",
        "y": LOSS.key,
        "settings": findings.settings,
        "shown": [metric.key for metric in summary_metrics(findings.rows)],
        "metrics": [
            {"key": metric.key, "label": metric.label, "lower": metric.lower, "logarithmic": metric.logarithmic}
            for metric in metrics
        ],
        "dark": style.DARK | style.DARK_CHROME,
        "beaten": style.BEATEN,
        "families": {
            family: _front_look(family) for family in dict.fromkeys(point.family for point in findings.compared)
        },
        "series": {name: {"colour": look.colour, "shape": style.SHAPES[look.marker]} for name, look in styles.items()},
        "points": [
            {
                "name": point.name,
                "family": point.family,
                "series": point.series,
                "size": point.size,
                "values": {metric.key: metric.of(point) for metric in metrics},
                "spread": {metric.key: spread for metric in metrics if (spread := timing.spread(point, metric))},
            }
            for point in findings.compared
        ],
    }


def _front_look(family: str) -> dict[str, Any]:
    colour, dashes = style.family_style(family)
    return {"colour": colour, "dash": DASHES[dashes]}
