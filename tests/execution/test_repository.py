"""A stage at a time through DVC, against what `dvc repro` itself does and finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import UserError
from pipeline.execution.repository import Begun, Repository, replaced_entry
from pipeline.execution.stages import Stage, dependents, with_needs
from tests.execution.conftest import NOTHING, ran, status


def by_hand() -> dict[str, Begun]:
    """What ``run`` does, one after the other."""
    repository = Repository()
    begun = {}
    for name, stage in repository.stages.items():
        begun[name] = repository.begin(name)
        if begun[name] is Begun.TO_RUN:
            subprocess.run([sys.executable, *stage.command.split()[1:]], check=True)
            repository.note(name)
    return begun


def repro(**options: Any) -> None:
    from dvc.repo import Repo

    with Repo() as repo:
        repo.reproduce(**options)


def test_stages_come_after_what_they_need(pipeline: Path) -> None:
    stages = Repository().stages
    assert stages["evaluate-x@a"] == Stage("evaluate-x@a", "python stage.py evaluate a", ("pretrain-x@a",))
    assert (stages["evaluate-x@a"].kind, stages["evaluate-x@a"].cell) == ("evaluate", "a")
    for name, stage in stages.items():
        assert set(stage.needs) <= set(list(stages)[: list(stages).index(name)])
    assert set(with_needs(stages, ["evaluate-x@a"])) == {"check", "tokenize", "pretrain-x@a", "evaluate-x@a"}
    assert set(dependents(stages, "pretrain-x@a")) == {"evaluate-x@a", "report"}


def test_what_is_noted_is_what_dvc_would_have_noted(pipeline: Path) -> None:
    assert set(by_hand().values()) == {Begun.TO_RUN}
    noted = Path("dvc.lock").read_text()
    assert status() == NOTHING
    repro(force=True)
    assert sorted(Path("dvc.lock").read_text().splitlines()) == sorted(noted.splitlines())


def test_an_edit_runs_what_it_changes_and_an_old_state_comes_back_from_the_cache(pipeline: Path) -> None:
    by_hand()
    ran()
    Path("a.txt").write_text("a 1")
    kept = Path("checkpoints/a/out").read_text()
    repository = Repository()
    assert repository.begin("check") is Begun.TO_RUN
    subprocess.run([sys.executable, "stage.py", "check"], check=True)
    repository.note("check")
    assert [name for name in repository.stages if repository.changed(name)] == ["check", "pretrain-x@a"]
    assert repository.begin("pretrain-x@a") is Begun.TO_RUN
    assert Path("checkpoints/a/out").read_text() == kept, "it persists"
    assert set(by_hand()) > {"pretrain-x@a"}
    assert ran() == ["check  -", "check  -", "pretrain a -", "evaluate a -", "report  -"]
    Path("a.txt").write_text("a 0")
    begun = by_hand()
    assert [name for name, how in begun.items() if how is Begun.RESTORED] == ["evaluate-x@a", "report"]
    assert ran() == ["check  -", "pretrain a -"]
    assert status() == NOTHING


def test_a_foreign_lock_file_is_kept_as_it_is(pipeline: Path) -> None:
    entry = "schema: '2.0'\nstages:\n  b@x:\n    cmd: new\n"
    ours = "schema: '2.0'\nstages:\n  a:\n    cmd: one\n    deps:\n    - path: x\n  b@x:\n    cmd: old\n"
    assert replaced_entry(ours, entry) == ours.replace("old", "new")
    assert replaced_entry("", entry) == entry
    theirs = "# a comment\nschema: '2.0'\nstages:\n  a:\n    cmd: one\ndatasets:\n- name: d\n"
    assert replaced_entry(theirs, entry) == theirs.replace("datasets", "  b@x:\n    cmd: new\ndatasets")


def test_two_do_not_run_at_once_and_what_a_kill_cut_off_is_mended(pipeline: Path) -> None:
    repository = Repository()
    Path(".dvc/tmp/rwlock").write_text('{"write": {"/x')
    with repository.alone():
        other = subprocess.run([sys.executable, "-m", "dvc", "repro"], capture_output=True, text=True)
        assert other.returncode
        assert "is busy" in other.stderr
    repro()


def test_errors_are_one_line(pipeline: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("dvc.lock").write_text("stages: [")
    with pytest.raises(UserError, match=r"DVC: unable to read: 'dvc\.lock'") as raised:
        Repository().begin("tokenize")
    assert "\n" not in str(raised.value)
    monkeypatch.chdir("told")
    with pytest.raises(UserError, match="run from the repository root"):
        Repository()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="DVC: you are not inside of a DVC repository"):
        Repository()
