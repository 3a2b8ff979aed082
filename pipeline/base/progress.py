"""The progress line: redrawn in a terminal, repeated now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

TERMINAL_SECONDS, LOG_SECONDS = 0.2, 15.0


class Progress:
    """How many of ``steps`` steps, or other units, are done, facts such as the loss, and the time left."""

    def __init__(self, name: str, steps: int, stream: TextIO | None = None, unit: str = "step") -> None:
        self.name = name
        self.steps = steps
        self.unit = unit
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self._begun: tuple[float, int] | None = None
        self._shown = 0.0
        self._width = 0

    def show(self, step: int, facts: str = "") -> None:
        """Show ``step`` and ``facts`` if the last line is old enough, or if it is the last step."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = now, step
            self._shown = now
        pause = TERMINAL_SECONDS if self.terminal else LOG_SECONDS
        if now - self._shown < pause and step < self.steps:
            return
        self._shown = now
        self._write("  ".join(part for part in (self._position(step), facts, self._left(step, now)) if part))

    def close(self) -> None:
        """End the line on a terminal."""
        if self.terminal and self._width:
            print(file=self.stream, flush=True)

    def _position(self, step: int) -> str:
        return f"{self.name}  {self.unit} {step}/{self.steps}"

    def _left(self, step: int, now: float) -> str:
        assert self._begun is not None
        begun, first = self._begun
        if step == first:
            return ""
        seconds = round((now - begun) / (step - first) * (self.steps - step))
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return f"{hours}:{minutes:02}:{seconds % 60:02} left" if hours else f"{minutes}:{seconds % 60:02} left"

    def _write(self, line: str) -> None:
        if self.terminal:
            print(f"\r{line:<{self._width}}", end="", file=self.stream, flush=True)
            self._width = len(line)
        else:
            print(line, file=self.stream, flush=True)
