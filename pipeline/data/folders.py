"""A folder that is whole or absent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.base.errors import UserError
from pipeline.base.files import cannot_write, refused


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; it takes the place of ``path`` if the block ends without an error.

    Its name is fixed, so that what a killed process left is cleared by the next one. Raises :class:`UserError` where
    the disk is full or cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        _remove(partial)
        partial.mkdir(parents=True)
        try:
            yield partial
        except BaseException:
            _remove(partial)
            raise
        _remove(path)
        partial.rename(path)
    except UserError:
        raise
    except Exception as error:
        refusal = error if isinstance(error, OSError) else refused(error)
        if refusal is None:
            raise
        raise cannot_write(path, refusal) from None


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
