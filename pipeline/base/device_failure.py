"""A GPU that fails, rather than what runs on it: one line, and a status by which others know to try again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.base.errors import UserError

WORDS = (
    "unspecified launch failure",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "hardware stack error",
    "uncorrectable",
    "launch timed out",
)
"""What CUDA calls failures that a new process may be spared."""


class DeviceFailure(UserError):
    """A GPU failed; the same command, started again, goes on from what was saved."""

    status = 75
    """``EX_TEMPFAIL`` of sysexits.h."""

    tries = 4
    """How often a stage, or a search's trial, that ends so is started."""

    def __init__(self, said: str) -> None:
        super().__init__(f"the GPU failed ({said}); run the same command again to go on")
        self.said = said


@contextmanager
def device_failure_says() -> Iterator[None]:
    """Raise :class:`DeviceFailure` where the block ends in an error of the GPU's own."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        if not any(words in said for words in WORDS):
            raise
        raise DeviceFailure(said) from None
