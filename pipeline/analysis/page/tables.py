"""The cells as CSV (everything, in SI units), and as the short table of the terminal and the README."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.analysis.figures.style import short
from pipeline.analysis.rows import timing
from pipeline.analysis.rows.load import told
from pipeline.analysis.rows.points import Row, timed
from pipeline.analysis.statistics.findings import Findings, hardware
from pipeline.analysis.statistics.pareto import Front
from pipeline.analysis.statistics.speedup import Quality
from pipeline.analysis.statistics.tasks import GUESS, GUESSES, is_guess, main_task_metrics
from pipeline.results.along import scores_along
from pipeline.results.metrics import (
    BITS_PER_BYTE,
    GENERATION,
    LOSS,
    PARAMETERS,
    TRAINING_FLOPS,
    TRAINING_TOKENS,
    Metric,
    all_metrics,
    finite,
    readable,
    setting_metric,
    settings_of,
)
from pipeline.results.probes import Detail, details

IDENTITY = ("cell", "family", "size", "block_length", "variant", "source", "seed", "attention")

MAIN_COLUMNS = 7
SUMMARY = ("tokens_per_second", "roofline_fraction", "bytes_per_sample")
LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    GUESS: r"$^\circ$",
}


@dataclass(frozen=True)
class TextTable:
    """A small table as text; the first column heads its rows."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def identity(row: Row) -> list[str]:
    """The row's :data:`IDENTITY` columns; what a vanilla cell lacks is empty."""
    cell = row.cell
    places = (cell.family, cell.size, cell.block_length, cell.variant, cell.source, cell.seed)
    values = (cell.name, *places, row.attention)
    return ["" if value is None else str(value) for value in values]


def marked(row: Row) -> str:
    """The cell's name in a table for people, with a mark where its training diverged: such a row has no loss."""
    return f"{row.name} (diverged)" if row.pretrain.diverged else row.name


@dataclass(frozen=True)
class Line:
    """A row of the short tables: a cell, or a model with all of its seeds."""

    name: str
    rows: Sequence[Row]

    def shown(self, metric: Metric) -> str:
        """A cell's number; for several seeds their mean and standard deviation. Guesses have their mark."""
        spread = metric.spread(self)  # 0 for what no seed changes, such as parameters
        around = f" ± {format_number(metric, spread)}" if spread else ""
        mark = GUESS if all(is_guess(row, metric) for row in self.rows) else ""
        return f"{format_number(metric, metric.of(self))}{around}{mark}"


def lines(findings: Findings) -> list[Line]:
    """A line per cell; where models have several seeds a line per model, and one for each cell that diverged."""
    if all(len(point.rows) == 1 for point in findings.trained):
        return [Line(marked(row), [row]) for row in findings.rows]
    joined = [Line(f"{point.name} ({len(point.rows)} seeds)", point.rows) for point in findings.trained]
    return joined + [Line(marked(row), [row]) for row in findings.rows if row.pretrain.diverged]


def summary_metrics(rows: Sequence[Row]) -> list[Metric]:
    """The columns of the short table: size, loss, task scores; tokens/s and bytes per sample in each setting."""
    settings = settings_of(rows)
    generation = [setting_metric(name, field) for field in SUMMARY for name in settings]
    tokens = [TRAINING_TOKENS] if any(row.cell.budget for row in rows) else []
    metrics = [PARAMETERS, *tokens, TRAINING_FLOPS, LOSS, BITS_PER_BYTE, *main_task_metrics(rows), *generation]
    return [metric for metric in metrics if any(metric.value(row) is not None for row in rows)]


def main_metrics(rows: Sequence[Row]) -> list[Metric]:
    """The columns that the page's table of cells shows to begin with, beside their names."""
    fields = ("tokens_per_second", "bytes_per_sample")
    generation = [setting_metric(setting, field) for field in fields for setting in settings_of(rows)]
    metrics = [PARAMETERS, LOSS, BITS_PER_BYTE, *generation, *main_task_metrics(rows), TRAINING_FLOPS]
    return [metric for metric in metrics if any(metric.value(row) is not None for row in rows)][:MAIN_COLUMNS]


def results_csv(rows: Sequence[Row]) -> str:
    """Every metric of every cell; one that a cell lacks is empty, and so is the quality of a cell that diverged."""
    metrics = all_metrics(rows)
    values = ([metric.value(row) for metric in metrics] for row in rows)
    return csv_text(
        [*IDENTITY, *(metric.key for metric in metrics), "diverged", "device", "precision"],
        (
            [
                *identity(row),
                *read,
                row.pretrain.diverged,
                row.benchmark.environment.device,
                row.benchmark.environment.precision,
            ]
            for row, read in zip(rows, values, strict=True)
        ),
    )


def curves_csv(rows: Sequence[Row]) -> str:
    """Every validation of every cell's training, for plots."""
    columns = ("step", "tokens", "train_loss", "validation_loss")
    records = [
        [*identity(row), int(step), int(tokens), finite(train), loss, row.pretrain.diverged]
        for row in rows
        for step, tokens, train, loss in zip(*(row.curve.get(column, []) for column in columns), strict=True)
        if math.isfinite(loss)
    ]
    return csv_text([*IDENTITY, *columns, "diverged"], records)


def probes_csv(rows: Sequence[Row]) -> str:
    """Every place that a probe tried, for plots; a diverged cell has none."""
    columns = [field.name for field in dataclasses.fields(Detail)]
    records = [
        [*identity(row), *dataclasses.astuple(detail)]
        for row in rows
        for detail in details(row.evaluate)
        if not row.pretrain.diverged
    ]
    return csv_text([*IDENTITY, *columns], records)


def along_csv(rows: Sequence[Row]) -> str:
    """Every score of every cell at every waypoint of its training, for plots; none where the study asks for none."""
    records = [
        [*identity(row), tokens, key, value]
        for row in rows
        for tokens, scores in scores_along(row.pretrain, row.evaluate)
        for key, value in scores.items()
    ]
    return csv_text([*IDENTITY, "tokens", "metric", "value"], records)


def pareto_csv(rows: list[Row], fronts: dict[str, Front]) -> str:
    """Loss and generation by cell and setting, with whether the cell is on the front of loss and tokens/s."""
    records = []
    for setting in settings_of(rows):
        best = {row.name for point in fronts[setting].front for row in point.rows}
        for row in timed(rows):
            values = [setting_metric(setting, field).value(row) for field in GENERATION]
            flags = (row.name in best, row.pretrain.diverged)
            records.append([*identity(row), setting, LOSS.value(row), *values, *flags])
    return csv_text([*IDENTITY, "setting", "loss", *GENERATION, "pareto", "diverged"], records)


def speedup_csv(quality: Sequence[Quality]) -> str:
    """Every speed-up at equal loss, and that of the rooflines where both families have one at that loss."""
    header = ["setting", "family", "against", "at_the_loss_of", "loss", "ratio", "low", "high", "roofline_ratio"]
    records = [
        [
            comparison.setting,
            comparison.matched.first,
            comparison.matched.second,
            estimate.anchor,
            estimate.at,
            estimate.value,
            estimate.low,
            estimate.high,
            next((limit.value for limit in comparison.limits.estimates if limit.anchor == estimate.anchor), None),
        ]
        for comparison in quality
        for estimate in comparison.matched.estimates
    ]
    return csv_text(header, records)


def short_table(findings: Findings) -> TextTable:
    """Size, loss, task scores and generation: a row per cell, or per model with its seeds."""
    metrics = summary_metrics(findings.rows)
    rows = [(line.name, *map(line.shown, metrics)) for line in lines(findings)]
    devices = hardware(findings.rows)
    title = f"Generation measured on {devices}." if devices else "Generation is not timed."
    return TextTable(title, ("cell", *(metric.label for metric in metrics)), rows)


def results_markdown(findings: Findings) -> str:
    """The short table as GitHub Markdown, under a line that names the hardware; below it what cells lack."""
    table = short_table(findings)
    text = [table.title, "", _pipes(table.head), _pipes(["---"] + ["---:"] * (len(table.head) - 1))]
    text += [_pipes(row) for row in table.rows]
    text += ["", f"{GUESS} {GUESSES}."] if any(GUESS in line for line in text) else []
    text += [line for remark in timing.borrowed(findings.rows) for line in ("", _plain(remark))]
    text += ["", "Missing results:", ""] if findings.missing else []
    text += [f"- {_plain(line)}" for line in told(findings.missing)]
    return "\n".join(text) + "\n"


def results_latex(findings: Findings) -> str:
    """The short table for LaTeX; comments below it say what cells lack."""
    text = latex(short_table(findings))
    notes = [f"{GUESS} {GUESSES}."] if LATEX[GUESS] in text else []
    notes += [f"missing: {line}" for line in told(findings.missing)]
    return text + "".join(f"% {' '.join(note.split())}\n" for note in notes)


def latex(table: TextTable) -> str:
    """A ``tabular`` with the rules of the package booktabs, under its title as a comment."""
    columns = "l" + "r" * (len(table.head) - 1)
    head, *rows = (" & ".join(map(_in_latex, row)) + r" \\" for row in (table.head, *table.rows))
    lines = [f"% {table.title} Needs \\usepackage{{booktabs}}.", f"\\begin{{tabular}}{{{columns}}}", r"\toprule", head]
    return "\n".join([*lines, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _in_latex(text: str) -> str:
    """With LaTeX's own characters written such that they are set as they are."""
    return "".join(LATEX.get(character, character) for character in text)


def _plain(text: str) -> str:
    """What may hold anything that a file's name may, for Markdown."""
    return text.replace("<", "&lt;").replace("|", "\\|")


def terminal_table(findings: Findings) -> str:
    """The short table in columns; ``*`` marks tokens/s that no cell beats at that loss or a lower one."""
    rows, fronts = findings.rows, findings.fronts
    settings = settings_of(rows)
    rates = [setting_metric(name, "tokens_per_second") for name in settings]
    tasks = main_task_metrics(rows)
    tokens = [TRAINING_TOKENS] if any(row.cell.budget for row in rows) else []
    metrics = [PARAMETERS, *tokens, LOSS, BITS_PER_BYTE, *tasks]
    best = {name: {row.name for point in fronts[name].front for row in point.rows} for name in settings}
    header = [
        "cell",
        "params",
        *("tokens" for _ in tokens),
        "loss",
        "bits/byte",
        *(task.label for task in tasks),
        *map(readable, settings),
    ]
    table = [header]
    for line in lines(findings):
        speeds = [
            line.shown(rate) + ("*" if line.rows[0].name in best[name] else " ")
            for name, rate in zip(settings, rates, strict=True)
        ]
        table.append([line.name, *map(line.shown, metrics), *speeds])
    text = in_columns(table)
    named = ", ".join(map(readable, settings))
    notes = [f"{named}: tokens/s; * on the Pareto front of loss and tokens/s"] if settings else []
    notes += [f"{GUESS} {GUESSES}"] if any(GUESS in line for line in text) else []
    notes += [f"missing: {line}" for line in told(findings.missing)]
    return "\n".join([*text, "", *notes])


def format_number(metric: Metric, value: float | None) -> str:
    """Three digits with a unit's prefix for what spans magnitudes, else four; ``-`` for none."""
    value = finite(value)
    return f"{value:.4g}" if value is not None and not metric.logarithmic else short(value)


def in_columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of text: the first row is underlined, the first column heads the rows, the others are flush right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    text = ["  ".join(_aligned(row, widths)).rstrip() for row in table]
    return [text[0], "-" * len(text[0]), *text[1:]]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(line, widths, strict=True)
    return [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]


def _pipes(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def csv_text(header: Sequence[str], records: object) -> str:
    """A header and its records as CSV; ``None`` is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(records)  # type: ignore[arg-type]
    return text.getvalue()
