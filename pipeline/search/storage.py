"""Where a search's trials are kept, by Optuna, for all its workers."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from pipeline.base.errors import UserError
from pipeline.base.paths import SEARCH

HEARTBEAT, GRACE = 5.0, 30.0  # seconds between signs of life, and without one until a worker counts as dead
LOCKS = SEARCH / "locks"
DATABASE = SEARCH / "study.db"
BUSY_SECONDS = 60


def lock(name: str) -> FileLock:
    """A lock among the processes of this file system; a killed one's is free."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    return FileLock(LOCKS / f"{name}.lock")


def open_study(name: str, storage: str | None, directions: list[StudyDirection]) -> optuna.Study:
    """The Optuna study of that name, made if need be. Raises :class:`UserError` where the storage does not open."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with lock("storage"):
        try:
            opened = _open(storage)
            return optuna.create_study(study_name=name, storage=opened, directions=directions, load_if_exists=True)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            right = "it is a database's URL that SQLAlchemy can open, or the path of a journal file"
            raise UserError(f"search.storage: {storage or DATABASE!s} does not open: {reason}; {right}") from None


def _open(storage: str | None) -> Any:
    if storage is None:
        DATABASE.parent.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{DATABASE}"
    if "://" not in storage:
        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(storage))
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
