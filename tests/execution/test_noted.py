"""Which stages dvc.lock says are up to date, against what DVC finds; what the stages of dvc.yaml are called."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.base.errors import UserError
from pipeline.execution.noted import DVC_LOCK, entries_of, is_uncommitted, stages_up_to_date, up_to_date
from pipeline.execution.repository import Repository
from pipeline.execution.stages import study_stages
from pipeline.study import load_study
from tests.execution.test_repository import repro


def edited(name: str) -> None:
    """What the stage `check` notes of an edit."""
    Path("data/causes", name).write_text("edited")


def test_a_stage_is_up_to_date_while_all_that_it_reads_is_as_it_was(pipeline: Path) -> None:
    with pytest.raises(UserError, match=r"dvc\.lock: no such file"):
        entries_of(DVC_LOCK)
    stages = Repository().stages
    repro()
    assert up_to_date(stages, entries_of(DVC_LOCK)) == set(stages)
    for name, follow in (("a", {"pretrain-x@a", "evaluate-x@a", "report"}), ("tokens", set(stages) - {"check"})):
        edited(name)
        found = Repository().out_of_date(stages)
        assert set(stages) - up_to_date(stages, entries_of(DVC_LOCK)) == set(found) == follow
    repro()
    assert up_to_date(stages, entries_of(DVC_LOCK)) == set(stages)


def test_a_stage_that_never_ran_or_was_forgotten_is_not(pipeline: Path) -> None:
    stages = Repository().stages
    repro(targets=["pretrain-x@a"])
    assert up_to_date(stages, entries_of(DVC_LOCK)) == {"check", "tokenize", "pretrain-x@a"}
    DVC_LOCK.write_text("schema: '2.0'\nstages: [\n")
    with pytest.raises(UserError, match=r"dvc\.lock: damaged \(.*\); run `dvc repro`"):
        entries_of(DVC_LOCK)


def test_git_tells_whether_the_lock_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    DVC_LOCK.write_text("a")
    assert not is_uncommitted(DVC_LOCK), "there is no Git"
    subprocess.run(["git", "init", "-q"], check=True)
    assert is_uncommitted(DVC_LOCK)
    commit()
    assert not is_uncommitted(DVC_LOCK)
    DVC_LOCK.write_text("b")
    assert is_uncommitted(DVC_LOCK)
    Path(".gitignore").write_text("runs/")
    Path("runs").mkdir()
    Path("runs/dvc.lock").write_text("a")
    assert not is_uncommitted(Path("runs/dvc.lock")), "Git ignores it"


def commit() -> None:
    """Everything that Git does not ignore."""
    subprocess.run(["git", "add", "-A"], check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, "commit", "-q", "-m", "a state"], check=True)


ALL = """
name: all
corpus: {}
tokenize: {}
sizes: {s: {layers: 2, width: 32}}
variants: {base: {}, start: {init: {method: partition}, embedder: {kind: projection, width: 32}}}
grid:
  vanilla: {size: [s]}
  block: {size: [s], block_length: [2, 4], variant: [base]}
  uptrained: {source: [vanilla-s-0, elsewhere], block_length: [4], variant: [start]}
  seed: [0]
pretrained: {elsewhere: {path: x, size: s}}
pretrain: {context_length: 32, tokens: 8192, budgets: [4096], batch_size: 2, schedule: wsd, warmup_steps: 2}
evaluate: {}
benchmark: {settings: {short: {prompt: 8, new_tokens: 8}}}
"""


def test_the_stages_have_the_names_that_dvc_gives_them(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    Repo.init(str(tmp_path), no_scm=True).close()
    shutil.copy(root / "dvc.yaml", "dvc.yaml")
    Path("params.yaml").write_text(ALL)
    study, known = load_study(), Repository().stages
    names = study_stages(study)
    assert sorted(names) == sorted(known)
    place = {name: number for number, name in enumerate(names)}
    assert all(place[need] < place[name] for name in names for need in known[name].needs)
    assert stages_up_to_date(study) == set()
