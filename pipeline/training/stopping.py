"""Ctrl-C and SIGTERM ask training to stop after the current step; a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(KeyboardInterrupt):
    """Training was interrupted and its state saved; the message says at which step."""


class StopRequest:
    """Whether a signal came, from :meth:`listen` to the end of :meth:`restored`."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the signals from now on; in another thread than the main one nothing can."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Give the old handlers back at the end."""
        try:
            yield
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            self._previous.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
