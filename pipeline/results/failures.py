"""Why a stage failed for a cell: its last error's line, kept beside the results until the stage runs again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.base import paths
from pipeline.base.device_failure import device_failure_says
from pipeline.base.errors import UserError
from pipeline.base.files import write_text
from pipeline.base.redact import redacted


@contextmanager
def failure_noted(stage: str, cell: str) -> Iterator[None]:
    """Note the error that ends the block, for the report; whatever was noted before is dropped."""
    path = _path(stage, cell)
    path.unlink(missing_ok=True)
    try:
        with device_failure_says():
            yield
    except Exception as error:
        with suppress(UserError):  # a disk that takes no more says so by the error itself
            write_text(path, _line(error) + "\n")
        raise


def failure(stage: str, cell: str) -> str | None:
    """The line that the stage ended with for this cell, if it failed and has not been run again."""
    try:
        return " ".join(_path(stage, cell).read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return None


def _path(stage: str, cell: str) -> Path:
    return paths.result(f"failures/{stage}", cell).with_suffix(".txt")


def _line(error: Exception) -> str:
    told = " ".join(str(error).split())
    return redacted(told if isinstance(error, UserError) else f"{type(error).__name__}: {told}")
