"""Files as they lie on a disk: opened by their ending, refused by name where they are cut off or something else."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.base.errors import UserError

# Kinds of file, told by their first bytes. pzstd begins with one of zstd's skippable frames, whose magic is its own.
_KINDS: list[tuple[str, tuple[bytes, ...]]] = [
    ("gzip", (b"\x1f\x8b",)),
    ("xz", (b"\xfd7zXZ\x00",)),
    ("zstd", (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16)))),
    ("zip", (b"PK\x03\x04",)),
]
_ENDINGS = {".gz": "gzip", ".xz": "xz", ".zst": "zstd"}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed according to its ending."""
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".xz": lzma.open, ".zst": _open_zstd}
    with openers.get(path.suffix, partial(Path.open, mode="rb"))(path) as opened:
        yield opened


def _open_zstd(path: Path) -> io.BufferedReader:
    from pyarrow import input_stream

    # Unlike zstandard's reader, Arrow's reports a stream that ends early.
    return io.BufferedReader(input_stream(str(path), compression="zstd"), 2**20)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise :class:`UserError` naming ``path`` where it is not of the kind that its ending says, or not whole."""
    try:
        _check_kind(path)
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if "requires too much memory" in str(error):
            raise UserError(
                f"{path}: its zstd window is longer than the 128 MiB that are read (--long=28 or more); "
                f"compress it anew with --long=27 or less"
            ) from None
        raise UserError(f"{path}: cannot be read to its end ({one_line(error)}); is it truncated or damaged?") from None


def _check_kind(path: Path) -> None:
    with path.open("rb") as opened:
        start = opened.read(len(_LFS_POINTER))
    if start.startswith(_LFS_POINTER):
        raise UserError(f"{path}: a Git LFS pointer, not the file it stands for; fetch that with `git lfs pull`")
    kind = next((kind for kind, magics in _KINDS if start.startswith(magics)), None)
    expected = _ENDINGS.get(path.suffix)
    if kind == expected or len(start) < 6:
        return
    if expected:
        is_what = f"its first bytes are those of {kind}" if kind else "it is compressed otherwise, or not at all"
        raise UserError(f"{path}: not of {expected}'s format, as its ending says; {is_what}")
    ending = next((ending for ending, name in _ENDINGS.items() if name == kind), None)
    right = f"give it the ending {path.suffix}{ending}" if ending and path.suffix == ".jsonl" else "unpack it first"
    raise UserError(f"{path}: a {kind} file, not text; {right}")


def one_line(error: Exception) -> str:
    """An error's message without its line ends."""
    return " ".join(str(error).split()) or type(error).__name__
