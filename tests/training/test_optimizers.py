"""Optimizers, against slow and obvious forms of themselves, and in training."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.models import build, costs
from pipeline.models.config import (
    BlockConfig,
    CrossAttentionConfig,
    EncoderConfig,
    LookupConfig,
    ModelConfig,
    PrefixConfig,
    ProjectionConfig,
    RobertaConfig,
    StackConfig,
    SummationConfig,
    T5Config,
    VanillaConfig,
)
from pipeline.study import Study, find_cell
from pipeline.study.recipe import OPTIMIZERS
from pipeline.study.schema import Pretrain
from pipeline.training import pretrain
from pipeline.training.curve import read_rows
from pipeline.training.optimizers import build_optimizer, muon
from pipeline.training.optimizers.groups import layer_matrices, moments
from pipeline.training.optimizers.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonalize
from tests.changed import changed

STACK = StackConfig(layers=2, width=32, heads=4, kv_heads=2, feed_forward=64)
ENCODER = EncoderConfig(layers=1, width=16, heads=2, kv_heads=2, feed_forward=64)
T5 = T5Config(layers=2, width=32, heads=4, kv_heads=2, feed_forward=64)
MODELS: dict[str, ModelConfig] = {
    "vanilla": VanillaConfig(64, 32, STACK),
    "prefix": BlockConfig(64, 32, 4, LookupConfig(8), STACK, PrefixConfig(STACK, 2)),
    "projection": BlockConfig(64, 32, 4, ProjectionConfig(24), STACK, SummationConfig(STACK)),
    "roberta": BlockConfig(64, 32, 4, RobertaConfig(ENCODER), STACK, CrossAttentionConfig(T5)),
}
SHAPES = [(32, 32), (32, 32), (32, 32), (64, 32), (64, 32), (32, 64), (96, 32), (1, 7), (7, 1)]


def draw(shapes: list[tuple[int, ...]], seed: int = 0) -> list[Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def on_matrices(matrices: list[Parameter], arithmetic: torch.dtype | None = None) -> Muon:
    group = {"params": matrices, "weight_decay": 0.1, "lr": 0.02, "orthogonal": True}
    return Muon([group], 0.02, [0.9, 0.95], arithmetic=arithmetic)


def give_gradients(parameters: list[Parameter], step: int) -> None:
    for parameter, other in zip(parameters, draw([tuple(p.shape) for p in parameters], 100 + step), strict=True):
        parameter.grad = other.detach()


def run(optimizer: torch.optim.Optimizer, parameters: list[Parameter], steps: range) -> None:
    for step in steps:
        give_gradients(parameters, step)
        optimizer.step()


def obvious_muon(parameters: list[Parameter], steps: range) -> None:
    """Muon as it is written down: one matrix after another, by its singular values, in fp64."""
    momenta = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters]
    a, b, c = COEFFICIENTS
    for step in steps:
        give_gradients(parameters, step)
        for parameter, momentum in zip(parameters, momenta, strict=True):
            assert parameter.grad is not None
            gradient = parameter.grad.double()
            momentum.copy_(0.95 * momentum + 0.05 * gradient)
            left, values, right = torch.linalg.svd(0.95 * momentum + 0.05 * gradient, full_matrices=False)
            values /= values.norm()
            for _ in range(ITERATIONS):
                values = a * values + b * values**3 + c * values**5
            update = 0.2 * math.sqrt(max(parameter.shape)) * (left * values) @ right
            parameter.data = (parameter.double() * (1 - 0.02 * 0.1) - 0.02 * update).float()


def test_muon_equals_its_formula_on_singular_values() -> None:
    found, expected = draw(SHAPES), draw(SHAPES)
    run(on_matrices(found), found, range(10))
    obvious_muon(expected, range(10))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def test_muon_equals_torchs_where_both_iterate_in_bf16() -> None:
    found, expected = draw(SHAPES), draw(SHAPES)
    theirs = torch.optim.Muon(expected, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    run(on_matrices(found, torch.bfloat16), found, range(10))
    run(theirs, expected, range(10))
    moved = [(p - q).norm().item() for p, q in zip(expected, draw(SHAPES), strict=True)]
    apart = [(p - q).norm().item() for p, q in zip(found, expected, strict=True)]
    assert max(distance / path for distance, path in zip(apart, moved, strict=True)) < 2e-3


def test_muon_equals_torchs_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's with its conversion to bf16 left out."""
    monkeypatch.setattr(Tensor, "bfloat16", lambda tensor: tensor.clone())
    found, expected = draw(SHAPES), draw(SHAPES)
    run(on_matrices(found), found, range(10))
    run(torch.optim.Muon(expected, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), expected, range(10))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)


def test_singular_values_end_near_one_whatever_they_were() -> None:
    for shape in ((3, 40, 40), (2, 20, 60), (2, 60, 20)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape, generator=torch.Generator().manual_seed(1))))
        assert 0.3 < float(values.min()) < float(values.max()) < 1.3


@pytest.mark.parametrize("at_once", [1, 2 * 32 * 32, 2**27])
def test_how_many_matrices_go_together_changes_only_rounding(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    expected = draw(SHAPES)
    run(on_matrices(expected), expected, range(3))
    monkeypatch.setattr(muon, "AT_ONCE", at_once)
    found = draw(SHAPES)
    run(on_matrices(found), found, range(3))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_a_gradient_of_zero_leaves_the_decay_alone() -> None:
    (matrix,) = draw([(8, 8)])
    expected = matrix.detach() * (1 - 0.02 * 0.1)
    matrix.grad = torch.zeros_like(matrix)
    on_matrices([matrix]).step()
    assert torch.equal(matrix.detach(), expected)


def test_a_matrix_without_a_gradient_is_left_alone() -> None:
    first, second = draw([(8, 8), (8, 8)])
    expected = second.detach().clone()
    first.grad = torch.ones_like(first)
    on_matrices([first, second]).step()
    assert torch.equal(second.detach(), expected)


def test_the_other_parameters_take_adamws_steps() -> None:
    found, expected = draw([(64, 32), (32,)]), draw([(64, 32), (32,)])
    run(Muon([{"params": found, "weight_decay": 0.1, "lr": 0.02}], 0.02, [0.9, 0.95]), found, range(5))
    run(torch.optim.AdamW(expected, lr=0.02, betas=(0.9, 0.95), weight_decay=0.1, fused=True), expected, range(5))
    assert all(torch.equal(p, q) for p, q in zip(found, expected, strict=True))


def recipe(optimizer: str) -> Pretrain:
    return Pretrain(optimizer=optimizer, learning_rate=0.01)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_in_one_group(optimizer: str, name: str) -> None:
    model = build(MODELS[name])
    held = [
        parameter for group in build_optimizer(model, recipe(optimizer)).param_groups for parameter in group["params"]
    ]
    assert len(held) == len({id(parameter) for parameter in held})
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_the_matrices_of_layers_are_those_that_costs_count(name: str) -> None:
    model = build(MODELS[name])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrices = layer_matrices(model)
    assert all(".layers." in names[id(matrix)] and matrix.ndim == 2 for matrix in matrices)
    assert sum(matrix.numel() for matrix in matrices) == costs.layer_matrices(MODELS[name])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_an_optimizer_keeps_as_many_moments_as_memory_is_planned_for(optimizer: str, name: str) -> None:
    model, kept = build(MODELS[name]), OPTIMIZERS[optimizer]
    built = build_optimizer(model, recipe(optimizer))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    built.step()
    states = [value for state in built.state.values() for value in state.values()]
    numbers = sum(value.numel() for value in states if value.ndim)
    assert numbers == sum(count * parameter.numel() for parameter, count in moments(model, optimizer))
    activations = costs.training_memory(MODELS[name]) - 16 * costs.total_parameters(MODELS[name])
    planned = costs.training_memory(MODELS[name], kept.matrix_moments, kept.other_moments) - activations
    assert planned == 4 * (2 * costs.total_parameters(MODELS[name]) + numbers)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_loaded_state_goes_on_bit_by_bit(optimizer: str) -> None:
    model = build(MODELS["roberta"])
    built = build_optimizer(model, recipe(optimizer))
    run(built, list(model.parameters()), range(3))
    again = copy.deepcopy(model)
    loaded = build_optimizer(again, recipe(optimizer))
    loaded.load_state_dict(copy.deepcopy(built.state_dict()))
    run(built, list(model.parameters()), range(3, 6))
    run(loaded, list(again.parameters()), range(3, 6))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


def test_muon_without_matrices_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^pretrain.optimizer: 'muon' is wrong for a model whose layers have no matrices"
    ):
        build_optimizer(nn.Embedding(4, 4), recipe("muon"))


def curve(study: Study, name: str) -> list[dict[str, str]]:
    pretrain(study, find_cell(study, name))
    rows = read_rows(paths.checkpoint(name) / "curve.csv")
    (paths.checkpoint(name) / "result.json").unlink()
    return rows


def losses(rows: list[dict[str, str]]) -> list[float]:
    return [float(row["train_loss"]) for row in rows]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["vanilla-s-0", "block-s-4-base-0"])
def test_a_cell_learns_and_micro_batches_change_only_rounding(tiny: Study, optimizer: str, name: str) -> None:
    tiny = changed(tiny, {"pretrain.optimizer": optimizer})
    whole = losses(curve(tiny, name))
    tiny = changed(tiny, {"hardware.micro_batch_size": 3})
    assert losses(curve(tiny, name)) == pytest.approx(whole, abs=2e-5)
    assert whole[-1] < whole[0] - 1


def test_the_curve_has_the_rate_of_the_matrices_where_they_have_their_own(tiny: Study) -> None:
    assert {row["matrix_learning_rate"] for row in curve(tiny, "vanilla-s-0")} == {""}
    tiny = changed(tiny, {"pretrain.optimizer": "muon", "pretrain.matrix_learning_rate": 0.03})
    rows = curve(tiny, "vanilla-s-0")
    assert [float(row["matrix_learning_rate"]) for row in rows] == pytest.approx(
        [3 * float(row["learning_rate"]) for row in rows], rel=1e-4
    )
    assert float(rows[1]["matrix_learning_rate"]) == pytest.approx(0.03)


def test_the_rate_of_the_matrices_and_their_momentum_have_an_effect(tiny: Study) -> None:
    tiny = changed(tiny, {"pretrain.optimizer": "muon"})
    base = losses(curve(tiny, "vanilla-s-0"))
    same = changed(tiny, {"pretrain.matrix_learning_rate": tiny.pretrain.learning_rate})
    assert losses(curve(same, "vanilla-s-0")) == base
    for key, value in (("matrix_learning_rate", 0.005), ("matrix_momentum", 0.5)):
        other = losses(curve(changed(tiny, {f"pretrain.{key}": value}), "vanilla-s-0"))
        assert other[0] == pytest.approx(base[0], abs=0.05)
        assert other != base
