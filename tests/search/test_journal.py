"""A journal file after killed workers: its lock, half a line at its end, and what stands in the way."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage

from pipeline.base.errors import UserError
from pipeline.base.paths import SEARCH
from pipeline.commands.search import search
from pipeline.search import journal, storage
from pipeline.search.journal import Journal, locked
from pipeline.search.storage import open_study
from tests.conftest import ROOT
from tests.search.conftest import Searching

LOG = Path("search/journal.log")
LOCK = Path("search/journal.log.lock")
LOWER = [optuna.study.StudyDirection.MINIMIZE]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and a grace period that a test can wait for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(journal, "GRACE", 0.5)
    monkeypatch.setattr(journal, "PATIENCE", 0.1)
    LOG.parent.mkdir()
    return tmp_path


def study() -> optuna.Study:
    return open_study(SEARCH, "s", str(LOG), LOWER)


def finish_trials(count: int) -> None:
    opened = study()
    for _ in range(count):
        opened.tell(opened.ask({"x": optuna.distributions.IntDistribution(0, 9)}), 1.0)


def stale(kind: str) -> None:
    """What a worker that is gone may have left as the lock."""
    if kind == "file":
        LOCK.touch()
    else:
        links = {"optunas": str(LOG), "absolute": str(LOG.resolve()), "ours": "elsewhere:1:abc", "loop": LOCK.name}
        LOCK.symlink_to(links[kind])


@pytest.mark.parametrize("kind", ["optunas", "absolute", "ours", "loop", "file"])
def test_a_dead_workers_lock_is_waited_for_and_removed(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    stale(kind)
    finish_trials(1)
    waits, removed = capsys.readouterr().err.splitlines()
    assert waits.startswith("search: waits for search/journal.log.lock (")
    assert removed.startswith("search: removed search/journal.log.lock")
    assert list(LOG.parent.glob("*.lock*")) == []
    assert len(study().trials) == 1


def test_a_search_goes_on_after_a_dead_workers_lock(searching: Searching, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = searching(("trials: 3", f"trials: 1\n  storage: {LOG}"))
    LOCK.symlink_to(LOG)
    search(loaded, work=False)
    assert "0 of 1 trials finished" in capsys.readouterr().out


def test_a_living_workers_lock_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    with locked(LOCK):
        held = LOCK.readlink()
        release = threading.Timer(0.3, LOCK.unlink)
        release.start()
        with locked(LOCK):
            assert LOCK.readlink() != held
    assert capsys.readouterr().err.count("search: ") == 1, "it says what it waits for, and removes nothing"


def test_a_lock_that_goes_from_hand_to_hand_is_nobodys_to_remove(capsys: pytest.CaptureFixture[str]) -> None:
    stop = time.monotonic() + 1.5

    def pass_on() -> None:
        number, next_lock = 0, LOCK.with_name("next")
        while time.monotonic() < stop:
            next_lock.symlink_to(f"elsewhere:{number}:abc")
            next_lock.replace(LOCK)  # at no moment is there no lock
            number += 1
            time.sleep(0.2)
        LOCK.unlink()

    LOCK.symlink_to("elsewhere:0:abc")
    thread = threading.Thread(target=pass_on)
    thread.start()
    with locked(LOCK):
        assert time.monotonic() >= stop - 0.25
    thread.join()
    assert "removed" not in capsys.readouterr().err


def test_a_worker_that_was_taken_for_dead_leaves_the_new_lock_alone() -> None:
    with locked(LOCK):
        LOCK.unlink()
        LOCK.symlink_to("another")
    assert str(LOCK.readlink()) == "another"


def test_writers_at_once_lose_nothing() -> None:
    finish_trials(0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: finish_trials(5), range(4)))
    assert len(study().trials) == 20


def test_a_killed_writers_lock_costs_only_time() -> None:
    code = f"from pathlib import Path; from pipeline.search.journal import locked\nwith locked(Path({str(LOCK)!r})):\n"
    code += "    print(flush=True)\n    import time; time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    writer = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert LOCK.is_symlink()
    finish_trials(1)
    assert len(study().trials) == 1


@pytest.mark.parametrize("half", [b'{"op_code":4,"wor', b"{", b'{"op_code":0}' * 1000, "ü".encode()[:1]])
def test_half_a_line_of_a_killed_writer_is_dropped(half: bytes) -> None:
    finish_trials(2)
    whole = LOG.read_bytes()
    LOG.write_bytes(whole + half)
    assert len(study().trials) == 2
    finish_trials(1)
    assert LOG.read_bytes().startswith(whole)
    assert all(isinstance(json.loads(line), dict) for line in LOG.read_bytes().splitlines())
    assert len(study().trials) == 3


def test_half_a_line_alone() -> None:
    LOG.write_bytes(b'{"op')
    finish_trials(1)
    assert len(JournalStorage(Journal(LOG)).get_all_studies()) == 1


@pytest.mark.parametrize(
    ("prepare", "place", "message"),
    [
        (LOCK.mkdir, str(LOG), r"search/journal\.log\.lock is a folder where the journal's lock belongs; remove it"),
        (LOG.mkdir, str(LOG), "search/journal.log does not open: .*Is a directory"),
        (lambda: None, "/proc/journal.log", "does not open: .*; name a place that can be written|does not open"),
        (lambda: LOG.write_text("not a journal\n{}\n"), str(LOG), "search/journal.log does not open: "),
    ],
    ids=["folder as lock", "folder as journal", "read-only", "damaged"],
)
def test_what_stands_in_the_way_is_one_line(prepare: object, place: str, message: str) -> None:
    assert callable(prepare)
    prepare()
    with pytest.raises(UserError, match=message) as raised:
        open_study(SEARCH, "s", place, LOWER)
    assert "\n" not in str(raised.value)


def test_a_database_that_is_locked_is_one_line(searching: Searching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BUSY_SECONDS", 0.2)
    loaded = searching()
    search(loaded, work=False)
    locker = sqlite3.connect("search/study.db", isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UserError, match=r"^search.storage: search/study.db.*database is locked") as raised:
        search(loaded)
    assert "\n" not in str(raised.value)
    locker.execute("ROLLBACK")
    search(loaded, work=False)


def test_a_database_that_locks_in_the_middle_is_one_line(searching: Searching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BUSY_SECONDS", 0.2)
    opened = open_study(SEARCH, "s", None, LOWER)
    locker = sqlite3.connect("search/study.db", isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    with (
        pytest.raises(UserError, match="database is locked; the same command goes on"),
        storage.storage_errors(SEARCH, None),
    ):
        opened.set_user_attr("key", 1)
    locker.execute("ROLLBACK")


def test_a_lock_that_a_living_worker_holds_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with storage.lock(SEARCH, "rates"):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    threading.Timer(0.5, done.set).start()
    with storage.lock(SEARCH, "rates"):
        pass
    thread.join()
    assert capsys.readouterr().err == "search: waits for search/locks/rates.lock, which another worker holds\n"


def test_a_section_whose_size_is_gone_stops_the_search_alone(searching: Searching) -> None:
    loaded = searching()
    without = dataclasses.replace(loaded, sizes={"other": loaded.sizes["s"]})
    with pytest.raises(UserError, match=r"search\.size: 's' is wrong"):
        search(without)
