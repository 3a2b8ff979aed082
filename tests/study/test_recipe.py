"""Keys of optimizers, schedules and initial weights: what is refused, in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.base.errors import UserError
from pipeline.study import load_study
from pipeline.study.recipe import matrix_learning_rate

RIGHT = [
    "optimizer: muon",
    "optimizer: muon, matrix_learning_rate: 2.0e-2",
    "optimizer: muon, matrix_momentum: 0.9, decay_all: true",
    "optimizer: muon, matrix_momentum: 0",
    "schedule: wsd",
    "schedule: wsd, cooldown: 0.1, cooldown_shape: linear",
    "initialization: {std: 0.01}",
    "initialization: {depth_scaled: true}",
    "matrix_learning_rate: null, cooldown: null",
    "warmup_steps: 366",
    "warmup_steps: 294, schedule: wsd, cooldown: 0.2",
    "warmup_steps: 0.05",
    "warmup_steps: 0.8, schedule: wsd",
]
WRONG = [
    ("optimizer: muonn", r"pretrain\.optimizer: 'muonn' is wrong; did you mean 'muon'"),
    ("optimizer: sgd", r"pretrain\.optimizer: 'sgd' is wrong; it is one of adamw, muon"),
    ("optimizer: 1", r"pretrain\.optimizer: 1 is wrong; it must be text"),
    ("matrix_learning_rate: 0.01", r"pretrain\.matrix_learning_rate: 0\.01 is wrong; it has no effect with optimizer"),
    ("matrix_momentum: 0.9", r"pretrain\.matrix_momentum: 0\.9 is wrong; it has no effect with optimizer adamw"),
    ("optimizer: muon, matrix_learning_rate: 0", r"pretrain\.matrix_learning_rate: 0\.0 is wrong; it must be greater"),
    ("optimizer: muon, matrix_learning_rate: fast", r"pretrain\.matrix_learning_rate: 'fast' is wrong; .* a number"),
    ("optimizer: muon, matrix_momentum: 1", r"pretrain\.matrix_momentum: 1\.0 is wrong; it is from 0 to below 1"),
    ("optimizer: muon, matrix_momentum: -0.1", r"pretrain\.matrix_momentum: -0\.1 is wrong"),
    ("schedule: WSD", r"pretrain\.schedule: 'WSD' is wrong; it is one of cosine, wsd"),
    ("cooldown: 0.2", r"pretrain\.cooldown: 0\.2 is wrong; it has no effect with schedule cosine; leave it out"),
    ("cooldown_shape: sqrt", r"pretrain\.cooldown_shape: 'sqrt' is wrong; it has no effect with schedule cosine"),
    ("schedule: wsd, cooldown: 0", r"pretrain\.cooldown: 0\.0 is wrong; it is a share of the steps"),
    ("schedule: wsd, cooldown: 20", r"pretrain\.cooldown: 20\.0 is wrong; it is a share of the steps"),
    ("schedule: wsd, cooldown_shape: square", r"pretrain\.cooldown_shape: 'square' is wrong; did you mean 'sqrt'"),
    ("schedule: wsd, cooldown: 1.0", r"pretrain\.warmup_steps: 40 is wrong; cell vanilla-s-0 takes 367 steps \(tokens "
     r"/ \(batch_size \* context_length\)\), and its cooldown 367 of them \(pretrain\.cooldown\); it is at most 0$"),
    ("warmup_steps: 367", r"367 is wrong; cell vanilla-s-0 takes 367 steps .*; it is at most 366, or "
     r"a share of the steps, such as 0\.05$"),
    ("warmup_steps: 295, schedule: wsd", r"295 is wrong; .* and its cooldown 73 of them .*; it is at most 294"),
    ("warmup_steps: -1", r"pretrain\.warmup_steps: -1 is wrong; it is a whole number of steps, 0 or more, or a share"),
    ("warmup_steps: 40.0", r"pretrain\.warmup_steps: 40\.0 is wrong; a number with a point is a share of the steps"),
    ("warmup_steps: 1.0", r"1\.0 is wrong; a number with a point is a share of the steps, below 1, such as 0\.05$"),
    ("warmup_steps: 0.9, schedule: wsd", r"warmup_steps: 0\.9 is wrong; .* what the cooldown leaves \(0\.8\)"),
    ("initialization: {std: 0}", r"pretrain\.initialization\.std: 0\.0 is wrong; it must be greater than 0"),
    ("initialization: {std: -1}", r"pretrain\.initialization\.std: -1\.0 is wrong"),
    ("initialization: 0.02", r"pretrain\.initialization: 0\.02 is wrong; it must be a mapping"),
    ("initialization: {depth: true}", r"pretrain\.initialization\.depth: unknown key; the keys here are std,"),
    ("initialization: {depth_scaled: 1}", r"pretrain\.initialization\.depth_scaled: 1 is wrong; it must be true"),
]  # fmt: skip


def write(folder: Path, params_text: str, keys: str) -> Path:
    """The study with these keys of ``pretrain``, whose values may hold braces but no comma."""
    changed, path = params_text, folder / "params.yaml"
    for key in keys.split(", "):
        name = key.split(":")[0]
        changed = re.sub(rf"^  {name}: .*\n", "", changed, flags=re.MULTILINE) if name != "schedule" else changed
        changed = changed.replace("  context_length: 512 ", f"  {key}\n  context_length: 512 ", 1)
    path.write_text(changed, encoding="utf-8")
    return path


@pytest.mark.parametrize("keys", RIGHT)
def test_a_right_recipe_is_taken(tmp_path: Path, params_text: str, keys: str) -> None:
    study = load_study(write(tmp_path, params_text, keys))
    rate = study.pretrain.matrix_learning_rate or study.pretrain.learning_rate
    assert matrix_learning_rate(study.pretrain) == (rate if "muon" in keys else None)


@pytest.mark.parametrize(("keys", "message"), WRONG)
def test_a_wrong_one_is_one_line(tmp_path: Path, params_text: str, keys: str, message: str) -> None:
    path = write(tmp_path, params_text, keys)
    with pytest.raises(UserError) as error:
        load_study(path)
    text = str(error.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert re.search(message, text), text


FOUND = "status: tuned, of: [vanilla-s], tokens: 9, trials: 9"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("vanilla-x: {}", r"recipes: 'vanilla-x' is wrong; the grid has no such model; leave it out, .* did you mean"),
        ("other: {}", r"recipes: 'other' is wrong; the grid has no such model; .* it is one of vanilla-s, vanilla-m,"),
        (f"vanilla-s: {{tuning: {{{FOUND}}}}}".replace("trials: 9", "trials: -9"),
         r"recipes\.vanilla-s\.tuning\.trials: -9 is wrong; it must be greater than 0"),
        (f"vanilla-s: {{tuning: {{{FOUND}}}}}".replace("tokens: 9", "tokens: 0"),
         r"recipes\.vanilla-s\.tuning\.tokens: 0 is wrong; it must be greater than 0"),
    ],
)  # fmt: skip
def test_a_recipe_of_no_model_or_found_by_no_trial_is_one_line(
    tmp_path: Path, params_text: str, recipe: str, message: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"{params_text}\nrecipes: {{{recipe}}}\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_study(path)
