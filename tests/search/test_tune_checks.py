"""The section tune: what is refused, in one line; ladders of choices, optima and power laws by their formulas."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pipeline.base.errors import UserError
from pipeline.commands.main import main
from pipeline.search.ladder import rung
from pipeline.search.optima import power_law
from tests.search.conftest import Searching

MODELS, SPACE = "[vanilla-s, block-s-4-base]", "{learning_rate: [0.004, 0.01, 0.025]}"
MISTAKES = [
    (MODELS, "[vanila-s]", r"tune\.models: 'vanila-s' is wrong; did you mean 'vanilla-s'"),
    (MODELS, "[[vanilla-s, block-s-8-base]]", r"tune\.models: 'block-s-8-base' is wrong"),
    (MODELS, "[vanilla-s, vanilla-s]", r"tune\.models: 'vanilla-s' is wrong; it stands twice"),
    (MODELS, "[]", r"tune\.models: \[\] is wrong; name at least one"),
    (MODELS, "[[]]", r"tune\.models: \[\[\]\] is wrong; name at least one"),
    (MODELS, "[1]", r"tune\.models\[0\]: 1 is wrong; it must be text"),
    (MODELS, "vanilla-s", r"tune\.models: 'vanilla-s' is wrong; it must be a list"),
    ("models: ", "predict: [vanilla-x]\n  models: ", r"tune\.predict: 'vanilla-x' is wrong; did you mean 'vanilla-"),
    ("models: ", "predict: [vanilla-m]\n  models: ", r"tune\.predict: 'vanilla-m' is wrong; it takes two tuned sizes"),
    ("models: ", "predict: [vanilla-s]\n  models: ", r"tune\.models: 'vanilla-s' is wrong; it stands twice"),
    (SPACE, "{}", r"tune\.space: \{\} is wrong; give choices of at least one key"),
    ("0.004,", "0,", r"tune\.space\.learning_rate: 0\.0 is wrong; it must be greater than 0"),
    ("0.004,", "fast,", r"tune\.space\.learning_rate\[0\]: 'fast' is wrong; it must be a number"),
    ("}\n  trials", ", optimizer: [sgd]}\n  trials", r"tune\.space\.optimizer: 'sgd' is wrong; it is one of adamw"),
    ("}\n  trials", ", matrix_momentum: [1]}\n  trials", r"tune\.space\.matrix_momentum: 1\.0 is wrong; it is from 0"),
    ("}\n  trials", ", matrix_learning_rate: [0.01]}\n  trials",
     r"tune\.space\.matrix_learning_rate: \[0\.01\] is wrong; it has no effect with optimizer adamw; leave it out"),
    ("}\n  trials", ", cooldown: [0.1]}\n  trials", r"tune\.space\.cooldown: unknown key"),
    ("trials: 3", "trials: 0", r"tune\.trials: 0 is wrong; it must be greater than 0"),
    ("trials: 3", "trials: 4", r"tune\.trials: 4 is wrong; tune\.space has 3 different points for vanilla-s; add"),
    ("rounds: 1", "rounds: 4", r"tune\.rounds: 4 is wrong; it is at most tune\.trials \(3\)"),
    ("  tokens: 2560\n", "", r"tune\.tokens: this key is missing"),
    ("tokens: 2560", "tokens: 1024", r"pretrain\.warmup_steps: 4 is wrong; a trial .* takes 4 steps"),
    ("}\n  trials", ", batch_size: [8, 32]}\n  trials",
     r"pretrain\.warmup_steps: 4 is wrong; a trial of tune\.tokens of vanilla-s with batch_size 32 takes 3 steps"),
    ("}\n  trials", ", warmup_steps: [2, 10]}\n  trials",
     r"tune\.space\.warmup_steps: 10 is wrong; a trial .* takes 10 steps"),
    ("rounds: 1", "seed: -1", r"tune\.seed: -1 is wrong; a seed is 0 or more"),
    ("storage: tune/journal", "storage: 'x://u:p@h/db'", r"tune\.storage: .* leave user and password to the driver"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES)
def test_a_mistake_is_one_clear_line(tuning: Searching, right: str, wrong: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        tuning((right, wrong))
    assert "\n" not in str(error.value)
    assert re.search(message, str(error.value)), str(error.value)
    assert not Path("tune").exists()


def test_a_study_without_the_section_says_where_to_find_one(
    tuning: Searching, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tuning()
    Path("params.yaml").write_text(Path("params.yaml").read_text().partition("\ntune:")[0])
    monkeypatch.setattr("sys.argv", ["pipeline", "tune"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "error: tune: params.yaml has no such section; docs/tuning.md shows one\n"


def test_muons_keys_are_taken_where_a_point_or_a_model_reads_them(tuning: Searching) -> None:
    tuning(("}\n  trials", ", matrix_learning_rate: [0.01], optimizer: [adamw, muon]}\n  trials"))
    tuning(
        ("}\n  trials", ", matrix_learning_rate: [0.01]}\n  trials"),
        ("\ntune:", "\nrecipes: {vanilla-s: {optimizer: muon}}\ntune:"),
    )


@pytest.mark.parametrize(
    ("choices", "position", "value"),
    [
        ([0.001, 0.002, 0.004], 1, 0.002),
        ([0.001, 0.002, 0.004], 3, 0.008),
        ([0.001, 0.002, 0.004], 5, 0.032),
        ([0.001, 0.002, 0.004], -2, 0.00025),
        ([0.003, 0.01], 2, 0.0333),
        ([2, 4, 8], 3, 16),
        ([2, 4, 8], -1, 1),
        ([2, 4, 8], -2, None),
        ([0.0, 0.1], -1, None),
        ([0.1], 1, None),
    ],
)
def test_a_ladder_goes_on_by_its_own_ratio(choices: list[float], position: int, value: float | None) -> None:
    assert rung(choices, position) == value


def test_a_power_law_is_found_and_its_interval_is_that_of_one_more_optimum() -> None:
    sizes = np.array([1e6, 4e6, 16e6, 64e6])
    exact = 0.5 * sizes**-0.25
    assert power_law(sizes, exact, 256e6) == pytest.approx((0.5 * 256e6**-0.25,) * 3)
    noisy = exact * np.array([1.1, 0.9, 1.2, 0.95])
    value, low, high = power_law(sizes, noisy, 256e6)
    design = np.column_stack([np.ones(4), np.log(sizes)])
    coefficients, (squares,), *_ = np.linalg.lstsq(design, np.log(noisy), rcond=None)
    row = np.array([1, math.log(256e6)])
    spread = math.sqrt(squares / 2 * (1 + row @ np.linalg.inv(design.T @ design) @ row)) * stats.t.ppf(0.975, 2)
    assert math.log(value) == pytest.approx(row @ coefficients)
    assert (math.log(low), math.log(high)) == pytest.approx((math.log(value) - spread, math.log(value) + spread))


def test_two_sizes_give_a_value_and_no_interval() -> None:
    assert power_law([1e6, 4e6], [0.02, 0.01], 16e6) == pytest.approx((0.005,))
