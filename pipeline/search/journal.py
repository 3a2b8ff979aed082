"""The journal file of a search: Optuna's, but for what killed workers leave behind.

Optuna's lock asks for the age of what its symbolic link points to. With a relative path that is nothing, so that it
asks for ever. And a line that a killed worker half wrote would spoil the next one for every worker.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from pipeline.base.errors import UserError

GRACE = 30.0  # seconds that one worker may hold the lock before it counts as dead; a write takes milliseconds
PATIENCE = 5.0  # seconds before a worker says what it waits for
WAIT = (0.001, 0.5)


class Journal(JournalFileBackend):
    """Raises OSError where file or lock cannot be written, :class:`UserError` where a folder is in the lock's place."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write the logs behind the last whole line."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with locked(self._path.with_name(f"{self._path.name}.lock")):
            _drop_half_a_line(self._path)
            with self._path.open("ab") as opened:
                opened.write(lines.encode())
                opened.flush()
                os.fsync(opened.fileno())


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a symbolic link that names its holder: it is made at once or not at all, also on network file systems.

    One that stays the same for :data:`GRACE` seconds of this process's own clock is a dead worker's, and removed.
    """
    own = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
    _acquire(lock, own)
    try:
        yield
    finally:
        if _holder(lock) == own:  # another worker may have taken this one for dead
            lock.unlink(missing_ok=True)


def _acquire(lock: Path, own: str) -> None:
    holder, since, pause, told = None, time.monotonic(), WAIT[0], False
    while not _made(lock, own):
        now = _holder(lock)
        if now != holder:
            holder, since, pause, told = now, time.monotonic(), WAIT[0], False
        waited = time.monotonic() - since
        if holder is not None and waited > GRACE:
            _break(lock, holder)
        elif waited > PATIENCE and not told:
            told = True
            _say(f"waits for {lock} ({holder}); after {GRACE:.0f} seconds its worker is taken for dead")
        time.sleep(pause)
        pause = min(2 * pause, WAIT[1])


def _made(lock: Path, own: str) -> bool:
    try:
        lock.symlink_to(own)
    except FileExistsError:
        return False
    return True


def _holder(lock: Path) -> str | None:
    """What tells one holder from the next: the link's text, or the times of what is no link; ``None``: no lock."""
    try:
        return str(lock.readlink())
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return f"no link, of {lock.lstat().st_mtime}"


def _break(lock: Path, holder: str) -> None:
    """Remove a dead worker's lock; whoever finds that he moved a new one puts it back."""
    if lock.is_dir() and not lock.is_symlink():
        raise UserError(f"{lock} is a folder where the journal's lock belongs; remove it")
    aside = lock.with_name(f"{lock.name}.{uuid.uuid4().hex}")
    try:
        lock.rename(aside)
    except FileNotFoundError:
        return
    moved = _holder(aside)
    if moved is not None and moved != holder:
        _made(lock, moved)
    else:
        _say(f"removed {lock}, which {holder} held for more than {GRACE:.0f} seconds")
    aside.unlink()


def _say(what: str) -> None:
    print(f"search: {what}", file=sys.stderr, flush=True)


def _drop_half_a_line(path: Path) -> None:
    """Cut what a killed worker wrote behind the last end of line; nobody has read it as a log."""
    with path.open("r+b") as opened:
        end = opened.seek(0, os.SEEK_END)
        whole = end
        while whole > 0:
            start = max(0, whole - 4096)
            opened.seek(start)
            newline = opened.read(whole - start).rfind(b"\n")
            if newline >= 0:
                whole = start + newline + 1
                break
            whole = start
        if whole < end:
            opened.truncate(whole)
