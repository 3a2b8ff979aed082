"""Memory that runs out, on the device or on this machine, as one line that names the keys that help."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.base.errors import UserError

WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "cuda error: out of memory",
    "could not create a primitive",  # oneDNN, which has no room for its code
)
LOST = ("without setting an exception", "error return without exception set")


@contextmanager
def out_of_memory_says(advice: str) -> Iterator[None]:
    """Raise :class:`UserError`, ``out of memory`` and ``advice``, where the block runs out of memory."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        error.__traceback__ = None  # lets go of what its frames hold: the error's line needs memory too
        raise UserError(f"out of memory {advice}") from None


def is_out_of_memory(error: BaseException) -> bool:
    """torch has an exception for a GPU's memory (a RuntimeError), and for the host's a RuntimeError like any other."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, SystemError):  # the interpreter had no memory for the MemoryError, in an import for instance
        return any(words in str(error) for words in LOST)
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in WORDS)
