"""Where a search's trials are kept, by Optuna, for all its workers."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage
from optuna.study import StudyDirection
from sqlalchemy.exc import SQLAlchemyError

from pipeline.base.errors import UserError
from pipeline.base.files import REFUSALS
from pipeline.search.journal import Journal

HEARTBEAT, GRACE = 5.0, 30.0  # seconds between signs of life, and without one until a worker counts as dead
BUSY_SECONDS = 60
PATIENCE = 10.0  # seconds before a worker says which lock it waits for


@contextmanager
def lock(folder: Path, name: str) -> Iterator[None]:
    """Hold a lock among the processes of this file system; a killed one's is free. Says what it waits for.

    ``folder`` is the search's, and its name that of the section, here and below.
    """
    locks = folder / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    held = FileLock(locks / f"{name}.lock")
    try:
        held.acquire(timeout=PATIENCE)
    except Timeout:
        print(f"{folder.name}: waits for {held.lock_file}, which another worker holds", file=sys.stderr, flush=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def open_study(folder: Path, name: str, storage: str | None, directions: list[StudyDirection]) -> optuna.Study:
    """The Optuna study of that name, made if need be. Raises :class:`UserError` where the storage does not open."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with lock(folder, "storage"):
        try:
            opened = _open(folder, storage)
            return optuna.create_study(study_name=name, storage=opened, directions=directions, load_if_exists=True)
        except UserError:
            raise
        except Exception as error:
            right = "it is a database's URL that SQLAlchemy can open, or the path of a journal file"
            if isinstance(error, OSError) and error.errno in REFUSALS:
                right = "name a place that can be written"
            shown = storage or _database(folder)
            raise UserError(f"{folder.name}.storage: {shown!s} does not open: {_reason(error)}; {right}") from None


@contextmanager
def storage_errors(folder: Path, storage: str | None) -> Iterator[None]:
    """What a storage that opened refuses later, as a :class:`UserError`: a database that is locked or away."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        again = "the same command goes on once that is put right"
        shown = storage or _database(folder)
        raise UserError(f"{folder.name}.storage: {shown!s}: {_reason(error)}; {again}") from None


def _reason(error: BaseException) -> str:
    """The first line of what went wrong, as the database says it."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _database(folder: Path) -> Path:
    return folder / "study.db"


def _open(folder: Path, storage: str | None) -> Any:
    if storage is None:
        folder.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{_database(folder)}"
    if "://" not in storage:
        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(Path(storage)))
    # Workers that write at the same time wait for each other.
    options = {"connect_args": {"timeout": BUSY_SECONDS}} if storage.startswith("sqlite") else {}
    return RDBStorage(storage, engine_kwargs=options)


@contextmanager
def heartbeat(trial: optuna.Trial) -> Iterator[None]:
    """Give signs of life of a trial while the block runs. Optuna's own exist for databases alone."""
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(trial, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _beat(trial: optuna.Trial, stop: threading.Event) -> None:
    for count in itertools.count():
        if stop.wait(HEARTBEAT):
            return
        try:
            trial.set_user_attr("heartbeat", count)
        except UpdateFinishedTrialError:
            return
        except (StorageInternalError, SQLAlchemyError, OSError):
            continue  # the next sign may come through; if none does, the trial is retried by whoever waits for it


class Watch:
    """Which running trials have a dead worker, by this process's own clock: another's may differ, and any be set."""

    def __init__(self) -> None:
        self._heard: dict[int, tuple[int | None, float]] = {}

    def stale(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether the trial's worker has not been heard of for :data:`GRACE` seconds, while this one listened."""
        sign, now = trial.user_attrs.get("heartbeat"), time.monotonic()
        last, since = self._heard.setdefault(trial.number, (sign, now))
        if last != sign:
            self._heard[trial.number] = sign, now
            return False
        return now - since > GRACE
