"""Which stages are jobs of one array, and which array waits for which."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.execution.slurm.arrays import arrays
from pipeline.execution.stages import Stage, Stages

VANILLA, BLOCK, UPTRAINED = "vanilla-s-0", "block-s-4-base-0", "block-vanilla-s-0-4-u-0"


def stages(*given: tuple[str, Iterable[str]]) -> Stages:
    return {name: Stage(name, f"run {name}", tuple(needs)) for name, needs in given}


def of_cell(group: str, cell: str, *needs: str) -> list[tuple[str, Iterable[str]]]:
    """A cell's training, and what follows from it."""
    training = f"pretrain-{group}@{cell}"
    kinds = ["evaluate"] if group.endswith("budgets") else ["evaluate", "benchmark"]
    return [(training, ("tokenize", *needs)), *((f"{kind}-{group}@{cell}", (training,)) for kind in kinds)]


def shown(given: Stages, largest: int = 100) -> list[str]:
    """A line for each array, such as ``evaluate x y after 1?``: = a job each, + all well, ? all however."""
    marks = {"aftercorr": "=", "afterok": "+", "afterany": "?"}
    lines = []
    for array in arrays(given, largest):
        tasks = [",".join(stage.cell or stage.name for stage in task) for task in array.tasks]
        after = "".join(f" {marks[how]}{place}" for how, place in array.after)
        lines.append(f"{array.kind}: {' '.join(tasks)};{after}")
    return lines


BASIS: list[tuple[str, Iterable[str]]] = [("check", ()), ("corpus", ()), ("tokenize", ("corpus",))]


def test_what_follows_from_a_cell_waits_for_that_cell_alone() -> None:
    given = stages(*BASIS, *of_cell("vanilla", VANILLA), *of_cell("block", BLOCK), ("report", ()))
    assert shown(given) == [
        "prepare: corpus,tokenize;",
        f"pretrain: {VANILLA} {BLOCK}; +0",
        f"benchmark: {VANILLA} {BLOCK}; =1",
        f"evaluate: {VANILLA} {BLOCK}; =1",
        "report: report; ?0 ?1 ?2 ?3",
    ]


def test_arrays_are_cut_and_what_follows_is_cut_alike() -> None:
    given = stages(*of_cell("block", "a"), *of_cell("block", "b"), *of_cell("block", "c"))
    assert [line.partition(":")[2] for line in shown(given, largest=2)] == [
        " a b;", " a b; =0", " a b; =0", " c;", " c; =3", " c; =3",
    ]  # fmt: skip


def test_budgets_follow_the_whole_cell_and_uptrained_cells_all_their_sources() -> None:
    given = stages(
        *BASIS,
        *of_cell("vanilla", VANILLA),
        *of_cell("vanilla-budgets", f"{VANILLA}-500"),
        *of_cell("block", BLOCK),
        *of_cell("uptrained", UPTRAINED, f"pretrain-vanilla@{VANILLA}"),
    )
    assert shown(given) == [
        "prepare: corpus,tokenize;",
        f"pretrain: {VANILLA}; +0",
        f"benchmark: {VANILLA}; =1",
        f"evaluate: {VANILLA}; =1",
        f"pretrain: {VANILLA}-500; =1",
        f"evaluate: {VANILLA}-500; =4",
        f"pretrain: {BLOCK}; +0",
        f"benchmark: {BLOCK}; =6",
        f"evaluate: {BLOCK}; =6",
        f"pretrain: {UPTRAINED}; +0 ?1",
        f"benchmark: {UPTRAINED}; =9",
        f"evaluate: {UPTRAINED}; =9",
    ]


def test_what_is_up_to_date_is_waited_for_by_nobody() -> None:
    budget = of_cell("vanilla-budgets", f"{VANILLA}-500")
    given = stages(*budget, ("evaluate-block@b", ("pretrain-block@b",)), ("report", ()))
    assert shown(given) == [
        f"pretrain: {VANILLA}-500;",
        f"evaluate: {VANILLA}-500; =0",
        "evaluate: b;",
        "report: report; ?0 ?1 ?2",
    ]
    assert arrays({}, 10) == []
