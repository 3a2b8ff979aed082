"""Files are written to a temporary name and renamed, so that they are whole or absent."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError

REFUSALS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.EMFILE}
)
"""What a system answers that will not write: full, read-only, forbidden, broken, out of handles."""


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the place of ``path`` if the block ends without an error.

    Raises :class:`UserError` where the disk is full or cannot be written.
    """
    path = Path(path)
    handle, temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException as error:
        refusal = refused(error) or _asked_again(error, temporary)
        temporary.unlink(missing_ok=True)
        if refusal is not None:
            raise cannot_write(path, refusal) from None
        raise
    finally:
        os.close(handle)


def cannot_write(path: Path | str, error: OSError) -> UserError:
    """The error of a ``path`` that the system will not write."""
    reason = os.strerror(error.errno) if error.errno else error
    return UserError(f"{path}: cannot be written ({reason}); run it again once that is put right")


def _temporary(path: Path) -> tuple[int, Path]:
    """A new file beside ``path``, locked until its handle is closed; those that killed processes left are removed."""
    prefix = f".{path.name}."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(glob.escape(prefix) + "?" * 8):
            _remove_unless_locked(left)
        while True:
            handle, name = tempfile.mkstemp(prefix=prefix, dir=path.parent)
            with suppress(OSError):  # not every file system has locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if Path(name).exists():  # another writer may have taken it for a killed one's before it was locked
                return handle, Path(name)
            os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from None


def _remove_unless_locked(path: Path) -> None:
    with suppress(OSError), path.open("rb") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def refused(error: BaseException) -> OSError | None:
    """The system's refusal to write, if that is what ``error`` is; tokenizers and safetensors put it into words."""
    if isinstance(error, OSError):
        return error if error.errno in REFUSALS else None
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), "") if number and int(number[1]) in REFUSALS else None


def _asked_again(error: BaseException, temporary: Path) -> OSError | None:
    """Why the system would not write ``temporary``: torch says nothing of it, so that the system is asked again."""
    if not isinstance(error, RuntimeError):
        return None
    try:
        with temporary.open("ab") as opened:
            opened.write(bytes(2**16))
            os.fsync(opened.fileno())
    except OSError as refusal:
        return refusal
    return None


def write_text(path: Path | str, text: str) -> None:
    """Write a text as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON, whole or not at all. Infinity and not-a-number are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file. Raises :class:`UserError` where it is absent or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {foreign(path) or f'not valid JSON ({error})'}") from None


def read_object(path: Path | str) -> dict[str, Any]:
    """Read a JSON file that holds an object. Raises :class:`UserError` as :func:`read_json` does."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: a JSON object belongs here, not {type(value).__name__}")
    return value


FOREIGN = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself; `git lfs pull` fetches it"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself; `git annex get` fetches it"),
    (b"<!doctype html", "a web page, not the file itself; fetch it again"),
    (b"<html", "a web page, not the file itself; fetch it again"),
    (b"PK\x03\x04", "a zip archive, as torch.save writes; unpack it, or save the weights as safetensors"),
    (b"\x80\x02", "a pickle, which may run code and is not read; save the weights as safetensors"),
    (b"\x1f\x8b", "compressed by gzip; unpack it"),
    (b"GGUF", "a GGUF file; the weights are needed as safetensors"),
)
"""How a file begins that stands where another one is meant, and what to do."""


def foreign(path: Path | str) -> str | None:
    """What a file is instead of the one that is meant, as far as its beginning tells."""
    try:
        with Path(path).open("rb") as opened:
            start = opened.read(64)
    except OSError:
        return None
    if not start:
        return "empty; was a download or a copy cut off?"
    return next((what for magic, what in FOREIGN if start.lstrip().lower().startswith(magic.lower())), None)


def is_file(path: Path | str) -> bool:
    """Whether a file of that name is there; a name that is too long for the disk is none."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def sha256(path: Path | str) -> str:
    """The file's SHA-256 as hex, read in pieces."""
    with Path(path).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
