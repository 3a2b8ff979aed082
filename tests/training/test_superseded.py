"""Edits of a trained study: nothing trained is lost, what an edit changes is said, and keys put back bring it back."""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from argparse import Namespace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.commands import clean
from pipeline.commands.plan import plan
from pipeline.study import Study, find_cell, load_study
from pipeline.study.superseded import kept, training_in
from pipeline.training import pretrain
from pipeline.training.curve import Row
from tests.training.processes import Training
from tests.training.test_resume import assert_equal, finish, losses

VANILLA, BLOCK = "vanilla-s-0", "block-s-4-base-0"
BETAS = {"betas": [0.9, 0.99]}


class Interrupted(Exception):
    """Stands for a kill, in this process."""


def edited(study: Study, **keys: object) -> Study:
    return dataclasses.replace(study, pretrain=dataclasses.replace(study.pretrain, **keys))


def stop_at(study: Study, name: str, step: int) -> None:
    """Train up to a step, and leave what a kill there leaves."""

    def on_row(row: Row) -> None:
        if row.step >= step:
            raise Interrupted

    with pytest.raises(Interrupted):
        pretrain(study, find_cell(study, name), on_row)


def told(study: Study, name: str) -> tuple[str, str]:
    (entry,) = (entry for entry in plan(study) if entry.cell == name)
    return entry.training, entry.why


def test_keys_put_back_bring_the_weights_back(tiny: Study, capsys: pytest.CaptureFixture[str]) -> None:
    first = finish(tiny, VANILLA)
    files = {path.name: path.read_bytes() for path in paths.checkpoint(VANILLA).iterdir()}
    capsys.readouterr()
    other = finish(edited(tiny, **BETAS), VANILLA)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "kept" in line]
    (aside,) = kept()
    assert line == (
        f"{VANILLA}: changed: pretrain.betas ([0.9, 0.95] -> [0.9, 0.99]); the training so far (complete, 20 steps) is "
        f"kept in {aside.folder}"
    )
    assert [name for name in first if not (first[name] != other[name]).any()] == []
    trained: list[Row] = []
    pretrain(tiny, find_cell(tiny, VANILLA), trained.append)
    assert trained == []
    assert "is back (complete, 20 steps)" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in paths.checkpoint(VANILLA).iterdir()} == files
    assert_equal(load_file(kept()[0].folder / "model.safetensors"), other)


def test_a_half_trained_cell_is_kept_and_goes_on(tiny: Study) -> None:
    expected = finish(tiny, BLOCK)
    curve = losses(paths.checkpoint(BLOCK) / "curve.csv")
    paths.checkpoint(BLOCK).rename("whole")
    stop_at(tiny, BLOCK, 10)
    finish(edited(tiny, learning_rate=0.02), BLOCK)
    (aside,) = kept(BLOCK)
    assert (aside.step, aside.complete) == (10, False)
    assert_equal(finish(tiny, BLOCK), expected)
    assert losses(paths.checkpoint(BLOCK) / "curve.csv") == curve


def test_other_code_sets_a_training_aside_too(tiny: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(tiny, VANILLA)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.study.causes.training_code", lambda *_: {"pipeline.models.layers": "other"})
        training, why = told(tiny, VANILLA)
        assert training == "again"
        assert why.startswith("changed: pipeline.data.batches, pipeline.data.hashing")
        assert "more; trains again; the training so far (complete, 20 steps) will be kept aside" in why
        finish(tiny, VANILLA)
    assert told(tiny, VANILLA)[0] == "back"
    assert [training.complete for training in kept()] == [True]


def test_the_same_training_set_aside_twice_is_there_twice(tiny: Study) -> None:
    stop_at(tiny, VANILLA, 6)
    stop_at(edited(tiny, **BETAS), VANILLA, 4)
    (paths.SUPERSEDED / VANILLA).rename("elsewhere")
    stop_at(tiny, VANILLA, 10)
    for folder in Path("elsewhere").iterdir():
        shutil.move(folder, paths.SUPERSEDED / VANILLA)
    stop_at(edited(tiny, **BETAS), VANILLA, 6)
    assert sorted(training.step for training in kept()) == [6, 10]
    stop_at(tiny, VANILLA, 12)
    assert sorted(training.step for training in kept()) == [6, 6]


def test_a_folder_without_training_is_not_kept(tiny: Study) -> None:
    folder = paths.checkpoint(VANILLA)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    finish(tiny, VANILLA)
    assert kept() == []


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}"])
def test_weights_whose_record_is_damaged_are_kept(tiny: Study, damage: str) -> None:
    weights = finish(tiny, VANILLA)
    (paths.checkpoint(VANILLA) / "config.json").write_text(damage)
    finish(tiny, VANILLA)
    (aside,) = kept()
    assert_equal(load_file(aside.folder / "model.safetensors"), weights)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("tokens: 5120", "pretrain.tokens (5120 -> 2560)"),
        ("layers: 2", "model.stack.layers (2 -> 3)"),
        ("width: 32", "model.stack.feed_forward (128 -> 256), model.stack.heads (1 -> 2), model.stack.kv_heads"),
        ("batch_size: 8", "pretrain.batch_size (8 -> 4)"),
    ],
)
def test_the_plan_says_what_an_edit_retrains_and_why(tiny: Study, change: str, key: str) -> None:
    finish(tiny, VANILLA)
    assert told(tiny, VANILLA) == ("complete", "")
    name, value = change.split(": ")
    new = {"layers": 3, "width": 64}.get(name, int(value) // 2)
    text = Path("params.yaml").read_text().replace(change, f"{name}: {new}")
    Path("params.yaml").write_text(text)
    training, why = told(load_study(), VANILLA)
    assert training == "again"
    assert why.startswith(f"changed: {key}")
    assert why.endswith("trains again; the training so far (complete, 20 steps) will be kept aside")


def test_the_plan_knows_a_new_cell_and_a_half_trained_one(tiny: Study) -> None:
    assert told(tiny, VANILLA) == ("new", "")
    stop_at(tiny, VANILLA, 10)
    assert told(tiny, VANILLA) == ("half", "goes on after 10 of 20 steps")


def test_an_added_key_with_its_default_changes_nothing(tiny: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.base.made_of import added, made_of

    fields = [("momentum", float, added(0.9)), ("shape", list, added([1, 2]))]
    Longer = dataclasses.make_dataclass("Longer", fields, bases=(type(tiny.pretrain),), frozen=True)
    keys = vars(tiny.pretrain)
    assert made_of(Longer(**keys)) == made_of(tiny.pretrain)
    assert made_of(Longer(**keys, momentum=0.8)) == made_of(tiny.pretrain) | {"momentum": 0.8}
    finish(tiny, VANILLA)
    longer = dataclasses.replace(tiny, pretrain=Longer(**keys))
    assert told(longer, VANILLA) == ("complete", "")
    assert told(dataclasses.replace(tiny, pretrain=Longer(**keys, shape=[1])), VANILLA)[0] == "again"


def run_clean(*cells: str, remove: bool = False) -> None:
    clean.run(Namespace(cell=list(cells), remove=remove))


def test_clean_lists_and_removes(tiny: Study, capsys: pytest.CaptureFixture[str]) -> None:
    run_clean()
    assert capsys.readouterr().out == "nothing is kept in superseded or trunks\n"
    for study in (tiny, edited(tiny, **BETAS), tiny, edited(tiny, **BETAS)):
        for name in (VANILLA, BLOCK):
            finish(study, name)
    capsys.readouterr()
    run_clean()
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("complete, 20 steps; against the present one: pretrain.betas ([0.9, 0.95] ->" in line for line in lines)
    assert last.startswith("2 kept, ")
    run_clean(BLOCK, remove=True)
    assert [training.cell for training in kept()] == [VANILLA]
    with pytest.raises(UserError, match=f"cell '{BLOCK}' has no training in superseded or trunks; they have {VANILLA}"):
        run_clean(BLOCK, remove=True)
    run_clean(remove=True)
    assert not any(paths.SUPERSEDED.iterdir())


@pytest.mark.slow
def test_twenty_kills_around_superseding_edits_lose_no_state(tiny: Study) -> None:
    """Two sets of keys in turn, each killed at a random moment: no training ever falls behind where it was."""
    draw, text = random.Random(0), Path("params.yaml").read_text().replace("checkpoint_every: 4", "checkpoint_every: 1")
    text = text.replace("tokens: 5120", "tokens: 40960")
    texts = [text, text.replace("pretrain:\n", "pretrain:\n  betas: [0.9, 0.99]\n", 1)]
    furthest = [0, 0]
    for kill in range(20):
        Path("params.yaml").write_text(texts[kill % 2])
        training = Training(VANILLA, pause=0.01)
        if draw.random() < 0.5:
            training.wait_for_step(furthest[kill % 2] + 1)
        time.sleep(draw.uniform(0, 0.3))
        training.kill()
        steps = {str(found.record["pretrain"]["betas"]): found.step for found in all_trainings()}
        for number, betas in enumerate(("[0.9, 0.95]", "[0.9, 0.99]")):
            assert steps.get(betas, 0) >= furthest[number] - 2  # the state after a row may still be on its way to disk
            furthest[number] = max(furthest[number], steps.get(betas, 0))
    for number, text in enumerate(texts):
        Path("params.yaml").write_text(text)
        study = load_study()
        weights = finish(study, VANILLA)
        paths.checkpoint(VANILLA).rename(f"whole-{number}")
        shelf = Path("superseded").rename(f"shelf-{number}") if Path("superseded").exists() else None
        assert_equal(finish(study, VANILLA), weights)
        paths.checkpoint(VANILLA).rename(f"again-{number}")
        if shelf:
            shelf.rename("superseded")
    print(f"20 kills; the two trainings had come to steps {furthest}")


def all_trainings() -> list[object]:
    present = training_in(paths.checkpoint(VANILLA))
    return [found for found in [*kept(), present] if found is not None and found.record]
