"""Weights kept along training, at the counts of evaluate.at, and what they score."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.commands.plan import plan
from pipeline.evaluation import evaluate
from pipeline.results.records import EvaluateResult, PretrainResult, read_result, write_result
from pipeline.study import Study, find_cell, load_study
from pipeline.study.causes import cell_cause, training_record
from pipeline.study.cells import model_config
from pipeline.study.waypoints import weights_at
from pipeline.training import pretrain
from tests.changed import changed
from tests.training.conftest import PARAMS
from tests.training.processes import Training
from tests.training.test_resume import assert_equal, finish
from tests.training.test_superseded import stop_at

VANILLA, BLOCK = "vanilla-s-0", "block-s-4-base-0"
AT = [1536, 2560]
"""Of 256 tokens per step: after steps 6 and 10, of 20; states to resume from are saved after 4, 8, 12."""


def asking(*counts: int) -> Study:
    text = PARAMS.replace("evaluate: {}", f"evaluate: {{at: {list(counts)}, recall: 0}}")
    Path("params.yaml").write_text(text, encoding="utf-8")
    return load_study()


@pytest.fixture
def study(tiny: Study) -> Study:
    return asking(*AT)


def kept(name: str) -> dict[int, dict[str, Tensor]]:
    """The weights of every waypoint."""
    files = sorted((paths.checkpoint(name) / "at").glob("*"))
    return {int(file.stem): load_file(file) for file in files}


def weights_after(study: Study, name: str, steps: int) -> dict[str, Tensor]:
    """What the same run has after so many steps, by the state that it saves there."""
    import torch

    stopping = changed(study, {"evaluate.at": [], "hardware.checkpoint_every": steps})
    stop_at(stopping, name, steps + 4)
    (state,) = (paths.checkpoint(name) / "resume").glob("*.ckpt")
    saved = torch.load(state, weights_only=True)
    assert saved["global_step"] % steps == 0
    weights = saved["state_dict"]
    paths.checkpoint(name).rename(f"stopped-{name}-{steps}")
    return {key.removeprefix("objective.model."): weight for key, weight in weights.items()}


@pytest.mark.parametrize("name", [VANILLA, BLOCK])
def test_the_weights_are_those_of_that_moment_and_training_is_the_same(tiny: Study, name: str) -> None:
    expected = {tokens: weights_after(tiny, name, tokens // 256) for tokens in AT}
    plain = finish(tiny, name)
    paths.checkpoint(name).rename("plain")
    assert_equal(finish(asking(*AT), name), plain)
    found = kept(name)
    assert list(found) == AT
    for tokens in AT:
        assert_equal(found[tokens], expected[tokens])


def test_a_killed_run_has_them_all(study: Study) -> None:
    expected = finish(study, BLOCK), kept(BLOCK)
    paths.checkpoint(BLOCK).rename("aside")
    for step in (6, 8, 12):
        training = Training(BLOCK, pause=0.1)
        training.wait_for_step(step)
        training.kill()
    assert_equal(finish(study, BLOCK), expected[0])
    assert list(kept(BLOCK)) == AT
    for tokens, weights in kept(BLOCK).items():
        assert_equal(weights, expected[1][tokens])


def test_a_count_that_is_added_trains_again_and_one_less_does_not(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = finish(study, VANILLA)
    less = asking(AT[0])
    finish(less, VANILLA)
    assert f"{VANILLA} is trained already" in capsys.readouterr().err
    more = asking(256, *AT)
    entry = plan(more)[0]
    told = "trains again for its weights after 256 tokens, which evaluate.at asks for"
    assert (entry.training, entry.why, entry.flops_to_go) == ("again", told, entry.training_flops)
    assert_equal(finish(more, VANILLA), weights)
    assert f"{VANILLA}: {told}\n" in capsys.readouterr().err
    assert sorted(kept(VANILLA)) == [256, *AT]
    assert plan(more)[0].training == "complete"


def test_a_state_past_a_count_that_is_added_is_no_beginning(study: Study) -> None:
    weights = finish(study, VANILLA)
    paths.checkpoint(VANILLA).rename("aside")
    stop_at(asking(), VANILLA, 14)
    assert plan(asking())[0].training == "half"
    assert plan(study)[0].training == "again"
    assert_equal(finish(study, VANILLA), weights)
    assert list(kept(VANILLA)) == AT


def test_a_trunk_that_passed_a_count_is_no_beginning_and_budgets_have_none(tiny: Study) -> None:
    wsd = "schedule: wsd\n  budgets: [3840]\n  validate_every: 10\n"
    text = PARAMS.replace("validate_every: 10\n", wsd).replace("evaluate: {}", f"evaluate: {{at: {AT}}}")
    Path("params.yaml").write_text(text, encoding="utf-8")
    study = load_study()
    finish(study, f"{VANILLA}-3840")
    assert kept(f"{VANILLA}-3840") == {}
    rows: list[int] = []
    pretrain(study, find_cell(study, VANILLA), lambda row: rows.append(row.step))
    assert rows[0] == 2
    assert list(kept(VANILLA)) == AT


def test_the_key_decides_what_training_keeps_and_no_weights(tiny: Study, study: Study) -> None:
    cell = find_cell(study, VANILLA)
    config = model_config(study, cell, 320)
    assert training_record(study, cell, config, "hash") == training_record(tiny, cell, config, "hash")
    assert "at" not in cell_cause(tiny, cell, 320)
    assert cell_cause(study, cell, 320) == cell_cause(tiny, cell, 320) | {"at": AT}


def test_evaluation_scores_them_as_it_scores_the_final_weights(study: Study) -> None:
    cell, folder = find_cell(study, BLOCK), paths.checkpoint(BLOCK)
    finish(study, BLOCK)
    path = paths.result("evaluate", BLOCK)
    write_result(path, evaluate(study, cell))
    record = read_result(path, EvaluateResult, "evaluate")
    assert [each.tokens for each in record.along] == AT
    assert record.along[0].scores.loss > record.along[1].scores.loss > record.loss
    plain = evaluate(changed(study, {"evaluate.at": []}), cell)
    assert (plain.loss, plain.along) == (record.loss, [])
    for tokens in AT:
        weights_at(folder, tokens).replace(folder / "model.safetensors")
        (scores,) = (each.scores for each in record.along if each.tokens == tokens)
        alone = evaluate(changed(study, {"evaluate.at": []}), cell)
        assert (alone.loss, alone.bits_per_byte) == (scores.loss, scores.bits_per_byte)
    with pytest.raises(UserError, match=r"at/1536.safetensors: no such weights; run `dvc repro` \(stage pretrain\)"):
        evaluate(study, cell)


def test_a_run_that_diverges_keeps_those_before(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.training.lightning import recorder

    whole = recorder.Recorder.flush

    def explode(self: recorder.Recorder, trainer: object, validate: bool = False) -> None:
        if trainer.global_step >= 9:  # type: ignore[attr-defined]
            monkeypatch.setattr("pipeline.training.lightning.recorder.math.log", lambda _: 0.0)
        whole(self, trainer, validate)  # type: ignore[arg-type]

    monkeypatch.setattr(recorder.Recorder, "flush", explode)
    result = pretrain(study, find_cell(study, VANILLA))
    assert isinstance(result, PretrainResult)
    assert result.diverged
    assert list(kept(VANILLA)) == AT[:1]
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("[5120]", f"evaluate.at: 5120 is wrong; cell {VANILLA} ends after 5,120 tokens (pretrain.tokens), where"),
        ("[512, 9999872]", f"evaluate.at: 9999872 is wrong; cell {VANILLA} ends after 5,120 tokens"),
        ("[1000]", f"evaluate.at: 1000 is wrong; cell {VANILLA} takes 256 tokens per step (pretrain.batch_size); "),
        ("[100]", "the nearest is 256"),
        ("[512, 256]", "evaluate.at: [512, 256] is wrong; its numbers of tokens rise, and each stands there once"),
        ("[512, 512]", "evaluate.at: [512, 512] is wrong; its numbers of tokens rise"),
        ("[0]", "evaluate.at: 0 is wrong; it must be greater than 0"),
        ("[1e3]", "evaluate.at[0]: 1000.0 is wrong; it must be a whole number"),
        ("512", "evaluate.at: 512 is wrong; it must be a list"),
    ],
)  # fmt: skip
def test_counts_that_training_does_not_pass_are_refused(tiny: Study, counts: str, message: str) -> None:
    Path("params.yaml").write_text(PARAMS.replace("evaluate: {}", f"evaluate: {{at: {counts}}}"), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_study()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
