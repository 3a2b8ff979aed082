"""A compiler that fails costs speed, not the training."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.fx import GraphModule

from pipeline.base import paths
from pipeline.models import build
from pipeline.study import Study, find_cell
from pipeline.training import pretrain
from pipeline.training.curve import read_rows
from pipeline.training.job import Job
from pipeline.training.objective import Objective
from pipeline.training.wrapping import Compiler, compile_layers, layers, recompute_activations
from tests.changed import changed

CELL = "block-s-4-base-0"
Graph = Callable[[GraphModule, list[Tensor]], Any]


def compiles(graph: GraphModule, inputs: list[Tensor]) -> Any:
    return make_boxed_func(graph.forward)


def fails(graph: GraphModule, inputs: list[Tensor]) -> Any:
    raise TypeError("CantSplit.__init__() missing 2 arguments\nand a page of where")


def fails_for_two_rows(graph: GraphModule, inputs: list[Tensor]) -> Any:
    rows = {given.shape[0] for given in inputs if given.dtype == torch.int64 and given.ndim == 2}
    return (fails if rows == {2} else compiles)(graph, inputs)


def use(monkeypatch: pytest.MonkeyPatch, forward: Graph, backward: Graph) -> None:
    """Make torch.compile take these for forward and backward graphs."""
    torch.compiler.reset()
    backend = aot_autograd(fw_compiler=forward, bw_compiler=backward)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))


def train(study: Study, name: str) -> tuple[list[float], dict[str, Tensor], dict[str, Any]]:
    """Losses, weights and result."""
    pretrain(changed(study, {"hardware.log_every": 1}), find_cell(study, name))
    folder = paths.checkpoint(name)
    losses = [float(row["train_loss"]) for row in read_rows(folder / "curve.csv")]
    result = json.loads((folder / "result.json").read_text())
    weights = load_file(folder / "model.safetensors")
    shutil.rmtree(folder)
    return losses, weights, result


@pytest.mark.parametrize(("name", "forward", "backward"), [("vanilla-s-0", fails, compiles), (CELL, compiles, fails)])
def test_training_goes_on_as_if_it_had_never_been_compiled(
    tiny: Study,
    name: str,
    forward: Graph,
    backward: Graph,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    losses, weights, result = train(changed(tiny, {"hardware.compile": False}), name)
    assert "compiler_failed" not in result
    capfd.readouterr()
    use(monkeypatch, forward, backward)
    uncompiled, same, result = train(changed(tiny, {"hardware.compile": True}), name)
    assert uncompiled == losses
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    assert result["compiler_failed"] is True
    warning, *others = capfd.readouterr().err.splitlines()
    assert warning == (
        f"{name}: torch.compile failed (TypeError: CantSplit.__init__() missing 2 arguments); it runs uncompiled, "
        "which is slower; with hardware.compile: false compiling is not tried"
    )
    assert all(line.startswith(f"{name}  step ") for line in others)


def test_gradients_before_the_failure_count_once(
    tiny: Study, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Six rows of each batch are compiled; the compiler fails for the last two, of another shape."""
    tiny = changed(tiny, {"hardware.micro_batch_size": 3})
    losses, _, plain = train(changed(tiny, {"hardware.compile": False}), CELL)
    use(monkeypatch, fails_for_two_rows, compiles)
    others, _, result = train(changed(tiny, {"hardware.compile": True}), CELL)
    assert others == pytest.approx(losses, abs=1e-6)
    assert result["target_tokens"] == plain["target_tokens"]
    assert capfd.readouterr().err.count("torch.compile failed") == 1


@pytest.mark.parametrize("recompute", [False, True])
def test_layers_that_are_compiled_one_by_one_fail_together(
    tiny: Study, recompute: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def counted(graph: GraphModule, inputs: list[Tensor]) -> Any:
        tried.append(graph)
        return fails(graph, inputs)

    config = Job.of(tiny, find_cell(tiny, CELL)).config
    tokens = torch.randint(300, (2, 32), generator=torch.Generator().manual_seed(0))
    gradients = []
    for compiling in (False, True):
        torch.manual_seed(0)
        objective = Objective(build(config))
        assert len(list(layers(objective))) > 1
        if recompute:
            recompute_activations(objective)
        if compiling:
            use(monkeypatch, compiles, counted)
            compile_layers(objective, Compiler(CELL))
        objective(tokens, None).sum().backward()
        gradients.append([parameter.grad for parameter in objective.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], atol=0, rtol=0)
    assert len(tried) == 1
    assert capfd.readouterr().err.count("\n") == 1
