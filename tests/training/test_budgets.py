"""Budgets: runs that share a trunk, and are what runs of their own would be, whatever of the trunk is there."""

from __future__ import annotations

import dataclasses
import random
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.commands import clean
from pipeline.commands.plan import plan
from pipeline.results.records import PretrainResult
from pipeline.study import Study, cells, find_cell, load_study
from pipeline.study.trunks import branches, trunks
from pipeline.training import pretrain
from pipeline.training.job import Job
from tests.training.conftest import PARAMS
from tests.training.processes import Training
from tests.training.test_resume import assert_equal
from tests.training.test_superseded import edited, stop_at

VANILLA, BLOCK = "vanilla-s-0", "block-s-4-base-0"
BUDGETS = "schedule: wsd\n  budgets: [3840, 1536]\n  validate_every: 3\n"
"""Of 256 tokens per step: 15 steps that cool down after 12, 6 after 5, and the whole cell's 20 after 16."""

Found = tuple[dict[str, Tensor], list[tuple[str, str, str]], PretrainResult]


def with_budgets(more: str = "") -> Study:
    text = PARAMS.replace("validate_every: 10\n", BUDGETS + more)
    Path("params.yaml").write_text(text, encoding="utf-8")
    return load_study()


@pytest.fixture
def study(tiny: Study) -> Study:
    return with_budgets()


def trained(study: Study, name: str) -> Found:
    """The weights, the curve's validation losses and the record of a run to the end."""
    result = pretrain(study, find_cell(study, name))
    assert result is not None
    return weights(name), validations(name), result


def weights(name: str) -> dict[str, Tensor]:
    return load_file(paths.checkpoint(name) / "model.safetensors")


def validations(name: str) -> list[tuple[str, str, str]]:
    from pipeline.results.curve import read_rows

    rows = read_rows(paths.checkpoint(name) / "curve.csv")
    return [(row["step"], row["tokens"], row["validation_loss"]) for row in rows if row["validation_loss"]]


def of_its_own(study: Study, name: str) -> Found:
    """What the cell's run is by definition: an ordinary run of that many tokens, without budgets or trunks."""
    cell = find_cell(study, name)
    alone = edited(study, tokens=cell.budget or study.pretrain.tokens, budgets=[])
    here = Path.cwd()
    elsewhere = Path(tempfile.mkdtemp(dir=here))
    (elsewhere / "data").symlink_to(here / "data")
    shutil.copy("params.yaml", elsewhere)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        return trained(alone, cell.whole.name)


def assert_same(found: Found, expected: Found) -> None:
    assert_equal(found[0], expected[0])
    assert found[1] == expected[1]
    for field in ("steps", "tokens", "target_tokens", "training_flops", "validation_loss"):
        assert getattr(found[2], field) == getattr(expected[2], field)
    assert found[2].cell.fingerprint == expected[2].cell.fingerprint


def test_the_cells_of_budgets_follow_the_whole_ones(study: Study) -> None:
    names = [cell.name for cell in cells(study)]
    assert names == [VANILLA, BLOCK, f"{VANILLA}-1536", f"{VANILLA}-3840", f"{BLOCK}-1536", f"{BLOCK}-3840"]
    steps = {cell.name: branches(study, cell) for cell in cells(study)}
    assert [steps[f"{VANILLA}-1536"], steps[f"{VANILLA}-3840"], steps[VANILLA]] == [[5], [5, 12], [5, 12, 16]]
    assert branches(edited(study, budgets=[]), find_cell(study, VANILLA)) == []


@pytest.mark.parametrize(("name", "optimizer"), [(VANILLA, "adamw"), (BLOCK, "adamw"), (BLOCK, "muon")])
def test_a_budget_is_a_run_of_its_own_wherever_it_begins(
    tiny: Study, capsys: pytest.CaptureFixture[str], name: str, optimizer: str
) -> None:
    study = with_budgets(f"  optimizer: {optimizer}\n")
    cell = f"{name}-3840"
    expected = of_its_own(study, cell)
    assert expected[2].steps == 15
    assert_same(trained(study, cell), expected)  # from nothing
    shutil.rmtree(paths.checkpoint(cell))
    shutil.rmtree("trunks")
    trained(study, f"{name}-1536")
    capsys.readouterr()
    assert_same(trained(study, cell), expected)  # half-way, from the smaller budget's state
    (state,) = trunks()
    assert state.steps == [5, 12]
    assert capsys.readouterr().err.splitlines()[0] == f"{cell} begins after 5 of 15 steps, with {state.state(5)}"
    shutil.rmtree(paths.checkpoint(cell))
    shutil.rmtree("trunks")
    trained(study, name)
    capsys.readouterr()
    steps: list[int] = []
    pretrain(study, find_cell(study, cell), lambda row: steps.append(row.step))
    assert steps == [14, 15]  # from the whole cell's state
    assert "begins after 12 of 15 steps" in capsys.readouterr().err
    assert_same((weights(cell), validations(cell), trained(study, cell)[2]), expected)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_whole_cell_may_begin_with_a_budgets_state(
    tiny: Study, capsys: pytest.CaptureFixture[str], optimizer: str
) -> None:
    study = with_budgets(f"  optimizer: {optimizer}\n")
    expected = of_its_own(study, BLOCK)
    trained(study, f"{BLOCK}-3840")
    assert_same(trained(study, BLOCK), expected)
    assert "begins after 12 of 20 steps" in capsys.readouterr().err
    longer = edited(study, tokens=7680)  # 30 steps, 24 of them before the cooldown
    expected = of_its_own(longer, BLOCK)
    assert_same(trained(longer, BLOCK), expected)
    assert "begins after 16 of 30 steps" in capsys.readouterr().err


def test_the_state_is_the_last_one_before_the_cooldown(study: Study) -> None:
    """One step later the rate, and so the weights, would be those of the budget alone."""
    trained(study, f"{VANILLA}-3840")
    (trunk,) = trunks()
    kept = torch.load(trunk.state(12), weights_only=True)
    whole = Job.of(study, find_cell(study, VANILLA)).schedule
    budget = Job.of(study, find_cell(study, f"{VANILLA}-3840")).schedule
    assert kept["global_step"] == budget.trunk_steps == 12
    assert [budget.rate(1, step) == whole.rate(1, step) for step in (12, 13)] == [True, False]


def test_the_record_is_of_the_whole_run(study: Study) -> None:
    whole = trained(study, VANILLA)[2]
    found = trained(study, f"{VANILLA}-3840")[2]
    assert (found.steps, found.tokens, found.cell.budget) == (15, 3840, 3840)
    assert found.training_flops == pytest.approx(whole.training_flops * 15 / 20)
    (trunk,) = trunks()
    recorder = next(iter(torch.load(trunk.state(12), weights_only=True)["callbacks"].values()))
    assert found.seconds > recorder["seconds"] > 0
    assert whole.cell.budget is None


def test_a_state_that_is_none_is_not_begun_with(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    cell = f"{VANILLA}-3840"
    expected = of_its_own(study, cell)
    trained(study, VANILLA)
    (trunk,) = trunks()
    path = trunk.state(12)
    (trunk.folder / "notes.ckpt").write_text("no step")
    for damage in (trunk.curve(12).unlink, lambda: torch.save([torch.zeros(2)], path), *overwritings(path)):
        shutil.rmtree(paths.checkpoint(cell), ignore_errors=True)
        damage()
        capsys.readouterr()
        assert_same(trained(study, cell), expected)
        assert "begins after 5 of 15 steps" in capsys.readouterr().err
        assert path.read_bytes()[:2] == b"PK"
        assert trunk.curve(12).exists()


def overwritings(path: Path) -> list[Callable[[], object]]:
    whole = path.read_bytes()
    return [partial(path.write_bytes, content) for content in (whole[: len(whole) // 2], b"", b"not a state")]


def test_a_state_of_another_trunk_is_not_begun_with(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    trained(edited(study, learning_rate=0.02), VANILLA)
    (other,) = trunks()
    own = Job.of(study, find_cell(study, f"{VANILLA}-3840")).trunk
    own.folder.mkdir(parents=True)
    for path in other.folder.iterdir():
        shutil.copy(path, own.folder)
    expected = of_its_own(study, f"{VANILLA}-3840")
    assert_same(trained(study, f"{VANILLA}-3840"), expected)
    assert "begins" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "same"),
    [
        ({"tokens": 7680}, True),
        ({"cooldown": 0.5}, True),
        ({"cooldown_shape": "linear"}, True),
        ({"final_learning_rate": 0.0}, True),
        ({"budgets": [2560]}, True),
        ({"warmup_steps": 5}, False),
        ({"warmup_steps": 0.2}, True),  # 4 of 20 steps, for budgets too
        ({"validate_every": 4}, False),
        ({"betas": [0.9, 0.99]}, False),
    ],
)
def test_a_trunk_belongs_to_what_decides_it(study: Study, edit: dict[str, object], same: bool) -> None:
    def trunk(study: Study) -> Path:
        return Job.of(study, find_cell(study, VANILLA)).trunk.folder

    assert (trunk(edited(study, **edit)) == trunk(study)) is same
    assert trunk(study) == Job.of(study, find_cell(study, f"{VANILLA}-1536")).trunk.folder


def test_another_cooldown_begins_with_the_same_state(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    trained(study, VANILLA)
    other = edited(study, cooldown=0.3, cooldown_shape="linear", final_learning_rate=0.05)  # 14 of 20 steps
    expected = of_its_own(other, VANILLA)
    assert_same(trained(other, VANILLA), expected)
    assert "begins after 12 of 20 steps" in capsys.readouterr().err


def test_other_code_begins_anew(
    study: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(study, VANILLA)
    capsys.readouterr()
    monkeypatch.setattr("pipeline.study.causes.training_code", lambda *_: {"pipeline.models.layers": "other"})
    trained(study, f"{VANILLA}-3840")
    assert "begins" not in capsys.readouterr().err


def test_a_study_without_budgets_keeps_no_trunk(study: Study) -> None:
    trained(edited(study, budgets=[]), VANILLA)
    assert trunks() == []


def test_the_plan_shows_budgets_and_what_they_begin_with(study: Study) -> None:
    def told() -> dict[str, tuple[int, str, str, float]]:
        return {
            entry.cell: (entry.steps, entry.training, entry.why, entry.flops_to_go / entry.training_flops)
            for entry in plan(study)
        }

    cell = f"{VANILLA}-3840"
    assert told()[VANILLA] == (20, "new", "", 1.0)
    assert told()[cell] == (15, "new", "", pytest.approx(3 / 15))  # the whole cell is to train the trunk
    trained(study, f"{VANILLA}-1536")
    (trunk,) = trunks()
    assert told()[cell] == (15, "new", f"begins after 5 of 15 steps, with {trunk.state(5)}", pytest.approx(10 / 15))
    assert told()[f"{VANILLA}-1536"] == (6, "complete", "", 0.0)


def test_clean_lists_and_removes_trunks(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    trained(study, f"{VANILLA}-3840")
    trained(study, f"{BLOCK}-1536")
    capsys.readouterr()
    clean.run(Namespace(cell=[], remove=False))
    first, second, last = capsys.readouterr().out.splitlines()
    (block, vanilla) = trunks()
    assert first == f"{block.folder}  trunk, after 5 steps"
    assert second == f"{vanilla.folder}  trunk, after 5, 12 steps"
    assert last.startswith("2 kept, ")
    clean.run(Namespace(cell=[VANILLA], remove=True))
    assert [trunk.cell for trunk in trunks()] == [BLOCK]
    clean.run(Namespace(cell=[], remove=True))
    assert list(Path("trunks").iterdir()) == []


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"schedule: wsd": "schedule: cosine"}, "pretrain.budgets: 1536 is wrong; it needs pretrain.schedule wsd, but"),
        ({"s: {layers": "s: {pretrain: {schedule: cosine}, layers"}, "has cosine (sizes.s.pretrain.schedule)"),
        ({"[3840,": "[5120,"}, f"5120 is wrong; cell {VANILLA} trains on 5,120 tokens (pretrain.tokens); a bud"),
        ({"base: {}": "base: {pretrain: {tokens: 2000}}"}, f"{BLOCK} trains on 2,000 tokens (variants.base.pretrain"),
        ({"[3840,": "[5000,"}, f"budgets: 5000 is wrong; cell {VANILLA} takes 20 steps for 5,120 tokens too; leave"),
        ({"[3840,": "[1530,"}, f"budgets: 1530 is wrong; cell {VANILLA} takes 6 steps for 1,536 tokens too; leave"),
        ({"[3840,": "[0,"}, "pretrain.budgets: 0 is wrong; it must be greater than 0"),
        ({"[3840,": "[1536,"}, "pretrain.budgets: 1536 is wrong; it stands there twice"),
        ({"[3840,": "[1e3,"}, "pretrain.budgets[0]: 1000.0 is wrong; it must be a whole number"),
        ({"[3840, 1536]": "3840"}, "pretrain.budgets: 3840 is wrong; it must be a list"),
        ({"1536]": "768]"}, f"warmup_steps: 4 is wrong; cell {VANILLA}-768 takes 3 steps (tokens / "),
        ({"1536]": "1024]"}, f"warmup_steps: 4 is wrong; cell {VANILLA}-1024 takes 4 steps (tokens / "),
        ({"[3840, 1536]": str([*range(2000, 2600)])}, "grid: '1,202 cells' is wrong; a study has at most 1,000 cells"),
    ],
)  # fmt: skip
def test_budgets_that_are_none_are_refused(study: Study, edits: dict[str, str], message: str) -> None:
    text = Path("params.yaml").read_text()
    for before, after in edits.items():
        assert before in text
        text = text.replace(before, after)
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        load_study()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_budget_may_not_be_the_source_of_uptraining(study: Study) -> None:
    text = (
        Path("params.yaml")
        .read_text()
        .replace("base: {}", "base: {}\n  up: {init: {method: partition}, embedder: {kind: projection, width: 32}}")
    )
    grid = "  uptrained: {source: [SOURCE], block_length: [4], variant: [up]}\npretrain:"
    text = text.replace("pretrain:", grid, 1)
    Path("params.yaml").write_text(text.replace("SOURCE", VANILLA))
    names = [cell.name for cell in cells(load_study())]
    assert names[2] == f"block-{VANILLA}-4-up-0"
    assert names[-2:] == [f"block-{VANILLA}-4-up-0-1536", f"block-{VANILLA}-4-up-0-3840"]
    assert {cell.source for cell in cells(load_study()) if cell.variant == "up"} == {VANILLA}
    Path("params.yaml").write_text(text.replace("SOURCE", f"{VANILLA}-1536"))
    with pytest.raises(UserError, match=f"grid.uptrained.source: '{VANILLA}-1536' is wrong"):
        load_study()


def test_an_uptrained_budget_begins_in_the_trunk_of_its_own_start(study: Study) -> None:
    text = Path("params.yaml").read_text()
    text = text.replace("base: {}", "up: {init: {method: partition}, embedder: {kind: projection, width: 32}}")
    grid = f"grid:\n  uptrained: {{source: [{VANILLA}], block_length: [4], variant: [up]}}\n"
    text = text.replace("grid:\n", grid).replace("variant: [base]", "variant: []")
    Path("params.yaml").write_text(text)
    study, cell = load_study(), f"block-{VANILLA}-4-up-0-3840"
    trained(study, VANILLA)
    expected = trained(study, cell)
    shutil.rmtree(paths.checkpoint(cell))
    steps: list[int] = []
    pretrain(study, find_cell(study, cell), lambda row: steps.append(row.step))
    assert steps == [14, 15]
    assert_same((weights(cell), validations(cell), trained(study, cell)[2]), expected)
    shutil.rmtree(paths.checkpoint(VANILLA))
    trained(edited(study, learning_rate=0.02), VANILLA)  # another source
    assert begins(study, cell) == ""


def begins(study: Study, name: str) -> str:
    """What the plan says of the cell's beginning."""
    (why,) = (entry.why for entry in plan(study) if entry.cell == name)
    return why.rpartition("; ")[2] if "begins" in why else ""


def test_a_branch_that_stops_goes_on_from_its_own_state(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    cell = f"{VANILLA}-3840"
    expected = of_its_own(study, cell)
    trained(study, VANILLA)
    stop_at(study, cell, 14)
    shutil.rmtree("trunks")
    assert_same(trained(study, cell), expected)
    assert capsys.readouterr().err.count("begins after") == 1


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_kills_of_branches_at_random_moments(tiny: Study, optimizer: str) -> None:
    """Ten or more, of two budgets in turn, while a state is written at every step; each ends bit-equal."""
    draw = random.Random(0)
    text = PARAMS.replace("validate_every: 10\n", f"{BUDGETS}  optimizer: {optimizer}\n")
    text = text.replace("tokens: 5120", "tokens: 128000").replace("[3840, 1536]", "[102400, 51200]")
    Path("params.yaml").write_text(text.replace("checkpoint_every: 4", "checkpoint_every: 1"))
    study = load_study()
    names = [f"{VANILLA}-51200", f"{VANILLA}-102400"]
    expected = [of_its_own(study, name) for name in names]
    killed = 0
    for kill in range(40):
        training = Training(names[kill % 2], pause=0.002)
        if draw.random() < 0.7:
            try:
                training.wait_for_step(1)
            except EOFError:  # it is complete
                training.process.join()
                continue
        time.sleep(draw.uniform(0, 0.25))
        if training.process.is_alive():
            training.kill()
            killed += 1
        if killed == 20:
            break
    assert killed >= 10
    for name, own in zip(names, expected, strict=True):
        assert_same(trained(study, name), own)
    (trunk,) = trunks()
    assert trunk.steps == [160, 320]
    shutil.rmtree(paths.checkpoint(names[1]))
    assert_same(trained(study, names[1]), expected[1])  # the states that are left are whole
    print(f"{killed} kills")


@pytest.mark.slow
def test_runs_of_one_trunk_at_the_same_time(study: Study) -> None:
    names = [VANILLA, f"{VANILLA}-3840", f"{VANILLA}-1536"]
    expected = [of_its_own(study, name) for name in names]
    running = [Training(name) for name in names]
    for training in running:
        training.process.join(120)
        assert training.process.exitcode == 0
    for name, own in zip(names, expected, strict=True):
        assert_same((weights(name), validations(name), trained(study, name)[2]), own)
    (trunk,) = trunks()
    assert trunk.steps == [5, 12, 16]
    assert sorted(path.suffix for path in trunk.folder.iterdir()) == [".ckpt"] * 3 + [".csv"] * 3


def test_a_budget_that_diverges_keeps_its_last_good_weights(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those it began its cooldown with, where nothing came after them."""
    study = dataclasses.replace(study, hardware=dataclasses.replace(study.hardware, checkpoint_every=100))
    trained(study, VANILLA)
    (trunk,) = trunks()
    state = torch.load(trunk.state(12), weights_only=True)["state_dict"]
    monkeypatch.setattr("pipeline.training.lightning.recorder.math.log", lambda _: 0.0)
    result = trained(study, f"{VANILLA}-3840")[2]
    assert (result.diverged, result.steps, result.tokens) == (True, 12, 12 * 256)
    for name, weight in weights(f"{VANILLA}-3840").items():
        assert torch.equal(weight, state[f"objective.model.{name}"])
