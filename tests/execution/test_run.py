"""What `python -m pipeline run` chooses, and in which order it starts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.base.errors import UserError
from pipeline.commands.run import chosen, order_of
from pipeline.execution.estimate import Training
from pipeline.execution.stages import Stage, Stages
from pipeline.study import Study, cells, load_study


@pytest.fixture
def study(tmp_path: Path, params_text: str) -> Study:
    path = tmp_path / "params.yaml"
    path.write_text(params_text, encoding="utf-8")
    return load_study(path, ["pretrain.schedule=wsd", "pretrain.budgets=[500000]", "grid.block.size=[]"])


@pytest.fixture
def stages(study: Study) -> Stages:
    found = {"tokenize": Stage("tokenize", "", ())}
    for cell in cells(study):
        pretrain = f"pretrain-vanilla{'-budgets' if cell.budget else ''}@{cell.name}"
        found[pretrain] = Stage(pretrain, "", ("tokenize",))
        for kind in cell.stages[1:]:
            found[f"{kind}-x@{cell.name}"] = Stage(f"{kind}-x@{cell.name}", "", (pretrain,))
    return found | {"report": Stage("report", "", tuple(found))}


def test_cells_are_chosen_with_what_they_need(study: Study, stages: Stages) -> None:
    assert chosen(stages, study, []) == stages
    assert list(chosen(stages, study, ["vanilla-m-0"])) == [
        "tokenize", "pretrain-vanilla@vanilla-m-0", "evaluate-x@vanilla-m-0", "benchmark-x@vanilla-m-0",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"cell: 'vanilla-n-0' is wrong; did you mean 'vanilla-[ms]-0'\?"):
        chosen(stages, study, ["vanilla-n-0"])


def test_without_benchmarks_there_is_no_report(study: Study, stages: Stages) -> None:
    found = chosen(stages, study, ["vanilla-m-0"], benchmark=False)
    assert list(found) == ["tokenize", "pretrain-vanilla@vanilla-m-0", "evaluate-x@vanilla-m-0"]
    everything = chosen(stages, study, [], benchmark=False)
    assert set(stages) - set(everything) == {"report", *(name for name in stages if name.startswith("benchmark"))}


def test_the_longest_training_is_first_and_budgets_wait_for_the_whole_cell(study: Study, stages: Stages) -> None:
    flops = {"vanilla-s-0": 2.0, "vanilla-m-0": 8.0, "vanilla-s-0-500000": 1.0, "vanilla-m-0-500000": 4.0}
    order = order_of(stages, study, {cell: Training(each, each, 10) for cell, each in flops.items()})
    assert [name for name in sorted(stages, key=lambda name: -order.work[name]) if "@" in name] == [
        "pretrain-vanilla@vanilla-m-0",
        "pretrain-vanilla-budgets@vanilla-m-0-500000",
        "pretrain-vanilla@vanilla-s-0",
        "pretrain-vanilla-budgets@vanilla-s-0-500000",
        *(name for name in stages if name.startswith("evaluate")),
        *(name for name in stages if name.startswith("benchmark")),
    ]
    assert order.after == {
        f"pretrain-vanilla-budgets@vanilla-{size}-0-500000": [f"pretrain-vanilla@vanilla-{size}-0"] for size in "sm"
    }
