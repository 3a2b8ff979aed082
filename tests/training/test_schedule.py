"""The learning rate, and what decays."""

from __future__ import annotations

import pytest
from torch import nn

from pipeline.models import build
from pipeline.study import Study, find_cell, model_config
from pipeline.training.optimizer import parameter_groups
from pipeline.training.schedule import Schedule


def test_warm_up_is_linear_from_zero_and_the_cosine_ends_at_the_last_step() -> None:
    schedule = Schedule(peak=1e-3, final=0.1, warmup_steps=10, steps=110)
    assert [schedule.rate(step) for step in (1, 5, 10)] == pytest.approx([1e-4, 5e-4, 1e-3])
    assert schedule.rate(60) == pytest.approx(0.55e-3)
    assert schedule.rate(110) == pytest.approx(1e-4)
    rates = [schedule.rate(step) for step in range(10, 111)]
    assert rates == sorted(rates, reverse=True)


def test_without_warm_up_the_first_step_is_just_below_the_peak() -> None:
    assert Schedule(1e-3, 0.1, 0, 100).rate(1) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("name", ["vanilla-s-0", "block-s-4-base-0"])
def test_biases_norms_and_tables_do_not_decay(tiny: Study, name: str) -> None:
    model = build(model_config(tiny, find_cell(tiny, name), 320))
    decayed, kept = parameter_groups(model, 0.1, decay_all=False)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0)
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    matrices = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert {names[id(parameter)] for parameter in decayed["params"]} == matrices
    (everything,) = parameter_groups(model, 0.1, decay_all=True)
    assert len(everything["params"]) == len(names)
