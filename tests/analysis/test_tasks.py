"""Which metric of a task the tables show, and which accuracies they mark as guesses."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.analysis.page import report, tables
from pipeline.analysis.rows.points import Row
from pipeline.analysis.statistics.findings import find
from pipeline.analysis.statistics.tasks import at_chance, main_task_metrics
from pipeline.results.records import TaskScore


def scored(rows: list[Row], **metrics: tuple[list[float], float]) -> list[Row]:
    """The rows with these values of task ``riddle`` by metric, and their standard error; of 400 documents."""
    made = []
    for number, row in enumerate(rows):
        scores = [
            TaskScore("riddle", name, values[number], error, 400, "1", chance=0.5 if name == "acc" else None)
            for name, (values, error) in metrics.items()
        ]
        made.append(dataclasses.replace(row, evaluate=dataclasses.replace(row.evaluate, tasks=scores)))
    return made


@pytest.fixture
def three(rows: list[Row]) -> list[Row]:
    return rows[:3]


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({"acc": ([0.5, 0.6, 0.7], 0.025)}, "acc"),
        ({"acc": ([0.5, 0.51, 0.49], 0.025), "gold_bits_per_byte": ([1.1, 1.4, 2.0], 0.03)}, "gold_bits_per_byte"),
        ({"acc": ([0.5, 0.6, 0.7], 0.025), "gold_bits_per_byte": ([1.1, 1.4, 2.0], 0.03)}, "acc"),
        ({"acc": ([0.5, 0.51, 0.49], 0.025), "gold_bits_per_byte": ([1.1, 1.11, 1.12], 0.03)}, "acc"),
        (
            {
                "acc": ([0.5, 0.51, 0.49], 0.025),
                "gold_bits_per_byte": ([1.1, 1.11, 1.12], 0.03),
                "gold_margin": ([0.1, 0.2, 0.4], 0.01),
            },
            "gold_margin",
        ),
        ({"acc": ([0.0, 0.0, 0.0], 0.0), "gold_bits_per_byte": ([1.1, 1.4, 2.0], 0.03)}, "gold_bits_per_byte"),
    ],
)
def test_the_table_shows_what_tells_the_cells_apart(
    three: list[Row], metrics: dict[str, tuple[list[float], float]], shown: str
) -> None:
    (metric,) = main_task_metrics(scored(three, **metrics))
    assert metric.key == f"riddle_{shown}"
    assert metric.lower == (shown == "gold_bits_per_byte")


def test_what_training_broke_does_not_count_as_telling_apart(three: list[Row]) -> None:
    made = scored(three, acc=([0.5, 0.51, 0.49], 0.025), gold_bits_per_byte=([1.1, 1.11, 9.0], 0.03))
    made[2] = dataclasses.replace(made[2], pretrain=dataclasses.replace(made[2].pretrain, diverged=True))
    assert main_task_metrics(made)[0].key == "riddle_acc"


def test_accuracies_that_may_be_guesses_are_marked_everywhere(three: list[Row]) -> None:
    """Guessing on 400 documents of two choices has a standard error of 0.025."""
    made = scored(three, acc=([0.548, 0.552, 0.44], 0.025))
    assert at_chance(made) == f"Accuracies within 1.96 standard errors of guessing: riddle acc: {made[0].name}."
    findings = find(made)
    assert at_chance(made) in findings.notes
    for table in (tables.terminal_table(findings), tables.results_markdown(findings)):
        marked = [line for line in table.splitlines() if "°" in line]
        assert len(marked) == 2
        assert made[0].name in marked[0]
        assert "0.548°" in marked[0]
        assert "standard errors of guessing" in marked[1]
    assert at_chance(scored(three, acc=([0.5, 0.5, 0.5], 0.025))).endswith("riddle acc: every cell.")
    assert at_chance(scored(three, acc=([0.6, 0.6, 0.6], 0.025))) == ""
    assert "°" not in tables.terminal_table(find(scored(three, acc=([0.6, 0.6, 0.6], 0.025))))


def test_dvc_compares_the_same_metrics_whatever_they_are(three: list[Row]) -> None:
    """The short tables may turn to another metric from one state of a study to the next."""
    for accuracies in ([0.5, 0.6, 0.7], [0.5, 0.51, 0.49]):
        made = scored(three, acc=(accuracies, 0.025), gold_bits_per_byte=([1.1, 1.4, 2.0], 0.03))
        metrics = report._cell_metrics(find(made), made[0])
        assert metrics["riddle_acc"] == accuracies[0]
        assert metrics["riddle_gold_bits_per_byte"] == 1.1
