"""Everything in ``report/``: tables, figures, page, and the numbers that DVC and MLflow show."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

from pipeline.analysis.figures.draw import drawing
from pipeline.analysis.figures.search import draw_search
from pipeline.analysis.figures.style import series_styles
from pipeline.analysis.page import recipes, tables
from pipeline.analysis.page.html import render
from pipeline.analysis.rows.families import slug
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Row
from pipeline.analysis.statistics.findings import Findings, find
from pipeline.analysis.statistics.speedup import Quality
from pipeline.analysis.statistics.tasks import steady_task_metrics
from pipeline.base.files import write_json, write_text
from pipeline.results.metrics import BITS_PER_BYTE, LOSS, setting_metric
from pipeline.study import Study


def write_report(study: Study, folder: Path) -> Findings:
    """Read the results and write the report of the trained and evaluated cells, with a list of what cells lack.

    Raises :class:`UserError` where there is no such cell.

    ``index.html`` and ``figures/`` for people; ``results.csv``, ``results.md``, ``results.tex`` (LaTeX),
    ``speedup.csv``, ``pareto.csv``, ``recipes.csv``, ``curves.csv``, ``along.csv`` and ``probes.csv`` to plot and to
    quote; ``report.json`` with headline, speed-ups, fronts and order; ``metrics/{cell}.json`` for ``dvc metrics``.
    """
    rows, missing = load_rows(study)
    figures = folder / "figures"
    for stale in (figures, folder / "metrics"):
        shutil.rmtree(stale, ignore_errors=True)
    with drawing(study, rows, figures) as drawn_with:
        findings = find(rows, missing)
        drawings = drawn_with(findings) + draw_search(study.name, figures)
    write_text(folder / "index.html", render(study, findings, drawings, figures))
    write_text(folder / "results.csv", tables.results_csv(findings.rows))
    write_text(folder / "results.md", tables.results_markdown(findings))
    write_text(folder / "results.tex", tables.results_latex(findings))
    write_text(folder / "curves.csv", tables.curves_csv(findings.rows))
    write_text(folder / "along.csv", tables.along_csv(findings.rows))
    write_text(folder / "probes.csv", tables.probes_csv(findings.rows))
    write_text(folder / "speedup.csv", tables.speedup_csv(findings.quality))
    write_text(folder / "pareto.csv", tables.pareto_csv(findings.rows, findings.fronts))
    write_text(folder / "recipes.csv", recipes.recipes_csv(findings.rows))
    write_json(folder / "report.json", summary(study, findings))
    for row in findings.rows:
        write_json(folder / "metrics" / f"{row.name}.json", _cell_metrics(findings, row))
    return findings


def summary(study: Study, findings: Findings) -> dict[str, Any]:
    """The numbers of ``report.json``; its lists, which ``dvc metrics`` passes over, name cells and sentences."""
    return {
        "study": study.name,
        "headline": findings.headline,
        "further": findings.further,
        "cells": len(findings.rows),
        "speedup": _speedups(findings.quality),
        "hypervolume": findings.hypervolumes,
        "recipes": {model.model: model.status for model in findings.recipes},
        "training_flops": recipes.compute_numbers(findings.compute),
        "out_of_sample": recipes.held_out_numbers(findings.scaling.laws),
        "predicted_speedup": [_finite(dataclasses.asdict(each)) for each in findings.predicted],
        "ordering": {
            key: {"compared": len(order), "held": sum(comparison.holds for comparison in order)}
            for key, order in findings.orderings.items()
        },
        "exceptions": [str(item) for order in findings.orderings.values() for item in order if not item.holds],
        "over_seeds": [
            {
                "metric": contrast.metric.key,
                "size": contrast.size,
                "first": contrast.first,
                "second": contrast.second,
                "seeds": contrast.seeds,
                "difference": contrast.difference,
                "margin": contrast.margin,
                "stands": contrast.stands,
                "needed": contrast.needed,
            }
            for contrast in findings.contrasts
        ],
        "pareto": {
            name: [row.name for point in front.front for row in point.rows] for name, front in findings.fronts.items()
        },
        "colours": _colours(findings),
        "missing": [dataclasses.asdict(lacking) for lacking in findings.missing],
        "diverged": [row.name for row in findings.rows if row.pretrain.diverged],
        "notes": findings.notes,
    }


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """A record for JSON, which has no infinity: ``None`` stands for it."""
    return {
        key: _finite(value) if isinstance(value, dict) else None if value == math.inf else value
        for key, value in record.items()
    }


def _colours(findings: Findings) -> dict[str, str]:
    """What the figures draw each cell in, for MLflow to draw it in too."""
    styles = series_styles(findings.points)
    return {row.name: styles[point.series].colour for point in findings.points for row in point.rows}


def _speedups(quality: list[Quality]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """At the lowest loss that both reach, by setting, family of block transformers and family of vanilla ones."""
    speedups: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for comparison in quality:
        best = comparison.matched.best
        if best is not None:
            ratios = speedups.setdefault(comparison.setting, {}).setdefault(slug(comparison.matched.first), {})
            ratios[slug(comparison.matched.second)] = best.numbers()
    return speedups


def _cell_metrics(findings: Findings, row: Row) -> dict[str, float]:
    """Few enough for a row of ``dvc metrics show``: quality, and tokens/s in each setting."""
    rates = [setting_metric(setting, "tokens_per_second") for setting in findings.settings]
    values = {
        metric.key: metric.value(row) for metric in (LOSS, BITS_PER_BYTE, *steady_task_metrics(findings.rows), *rates)
    }
    return {key: value for key, value in values.items() if value is not None}
