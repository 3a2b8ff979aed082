"""The learning rate of every step, and what decays."""

from __future__ import annotations

import dataclasses
import math

import pytest
from torch import nn

from pipeline.models import build
from pipeline.study import Study, find_cell, model_config
from pipeline.study.schema import Pretrain
from pipeline.training.optimizers.groups import decay_groups
from pipeline.training.schedule import Schedule

WSD = Pretrain(context_length=10, batch_size=1, warmup_steps=10, schedule="wsd", cooldown=0.2, final_learning_rate=0.0)


def rates(schedule: Schedule, peak: float = 1.0) -> list[float]:
    """Of steps 1, 2, ..."""
    return [schedule.rate(peak, step) for step in range(1, schedule.steps + 1)]


def wsd(steps: int, **changed: object) -> Schedule:
    return Schedule.of(dataclasses.replace(WSD, tokens=10 * steps, **changed))  # type: ignore[arg-type]


def test_warm_up_is_linear_from_zero_and_the_cosine_ends_at_the_last_step() -> None:
    schedule = Schedule.of(Pretrain(context_length=10, batch_size=1, tokens=1100, warmup_steps=10))
    found = rates(schedule, 1e-3)
    assert [found[step - 1] for step in (1, 5, 10)] == pytest.approx([1e-4, 5e-4, 1e-3])
    assert found[59] == pytest.approx(0.55e-3)
    assert found[109] == pytest.approx(1e-4)
    assert found[9:] == sorted(found[9:], reverse=True)


def test_the_cosine_is_bit_equal_to_its_formula() -> None:
    schedule = Schedule.of(Pretrain(context_length=10, batch_size=1, tokens=1100, warmup_steps=7))
    expected = [8e-3 * step / 7 for step in range(1, 8)]
    for step in range(8, 111):
        expected.append(8e-3 * (0.1 + (1 - 0.1) * (1 + math.cos(math.pi * ((step - 7) / (110 - 7)))) / 2))
    assert rates(schedule, 8e-3) == expected


def test_without_warm_up_the_first_step_is_just_below_the_peak() -> None:
    assert Schedule(100, 0, 100, "cosine", 0.1).rate(1e-3, 1) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("shape", "middle"), [("linear", 0.5), ("sqrt", 1 - math.sqrt(0.5)), (None, 1 - math.sqrt(0.5))]
)
def test_the_rate_is_constant_between_warm_up_and_cooldown(shape: str | None, middle: float) -> None:
    found = rates(wsd(100, cooldown_shape=shape))
    assert found[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert set(found[10:80]) == {1.0}
    assert found[80:] == sorted(found[80:], reverse=True)
    assert found[80] < 1
    assert (found[89], found[99]) == pytest.approx((middle, 0))


@pytest.mark.parametrize("shape", ["linear", "sqrt"])
def test_the_cooldown_ends_at_the_final_share_of_the_peak(shape: str) -> None:
    found = rates(wsd(50, cooldown_shape=shape, final_learning_rate=0.25), 0.02)
    assert (found[20], found[-1]) == pytest.approx((0.02, 0.005))


@pytest.mark.parametrize("budgets", [(60, 100, 400), (51, 52, 53), (13, 400)])
def test_budgets_share_their_trunk_until_the_first_cools_down(budgets: tuple[int, ...]) -> None:
    schedules = [wsd(steps) for steps in budgets]
    longest = rates(schedules[-1])
    for schedule in schedules:
        assert rates(schedule)[: schedule.trunk_steps] == longest[: schedule.trunk_steps]
        assert rates(schedule)[schedule.trunk_steps] < longest[schedule.trunk_steps - 1]


@pytest.mark.parametrize(("share", "steps"), [(0.2, 20), (0.005, 1), (0.001, 1), (0.9, 90), (None, 20)])
def test_the_cooldown_is_a_share_of_the_steps_and_at_least_one(share: float | None, steps: int) -> None:
    assert wsd(100, cooldown=share).cooldown_steps == steps


def test_a_cooldown_over_the_whole_run_has_no_warm_up() -> None:
    assert rates(wsd(10, cooldown=1.0, warmup_steps=0, cooldown_shape="linear")) == pytest.approx(
        [1 - step / 10 for step in range(1, 11)]
    )


@pytest.mark.parametrize(("share", "steps"), [(0.05, 5), (0.0, 0), (0.004, 0), (0.8, 80)])
def test_a_warm_up_with_a_point_is_a_share_of_the_steps(share: float, steps: int) -> None:
    assert wsd(100, warmup_steps=share) == wsd(100, warmup_steps=steps)
    cosine = wsd(100, schedule="cosine", warmup_steps=share)
    assert (cosine.warmup_steps, cosine.cooldown_steps) == (steps, 100 - steps)


@pytest.mark.parametrize("name", ["vanilla-s-0", "block-s-4-base-0"])
def test_biases_norms_and_tables_do_not_decay(tiny: Study, name: str) -> None:
    model = build(model_config(tiny, find_cell(tiny, name), 320))
    decayed, kept = decay_groups(model, tiny.pretrain)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0)
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    matrices = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert {names[id(parameter)] for parameter in decayed["params"]} == matrices
    (everything,) = decay_groups(model, dataclasses.replace(tiny.pretrain, decay_all=True))
    assert len(everything["params"]) == len(names)
