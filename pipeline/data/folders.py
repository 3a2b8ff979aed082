"""A folder that is whole or absent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; it takes the place of ``path`` if the block ends without an error.

    Its name is fixed, so that what a killed process left is cleared by the next one.
    """
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        _remove(partial)
        raise
    _remove(path)
    partial.rename(path)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
