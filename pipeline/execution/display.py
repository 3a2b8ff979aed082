"""A run as its user sees it: a live table in a terminal, else a line for whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pipeline.execution.board import GOOD, Board, Entry, State, log_of
from pipeline.execution.estimate import Training, last_point, span, time_left
from pipeline.execution.resources import Machine
from pipeline.execution.stages import KINDS

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

REDRAW = 1.0
"""Seconds between two drawings of the table."""

URGENT = (State.RUNNING, State.FAILED, State.STOPPED, State.SKIPPED, State.WAITING, *GOOD)
STYLES = {State.RUNNING: "cyan", State.FAILED: "bold red", State.SKIPPED: "red", State.WAITING: "dim"}


class Display:
    """Shows ``board``, whose trainings cost what ``trainings`` says of their cells."""

    def __init__(self, board: Board, machine: Machine, trainings: Mapping[str, Training]) -> None:
        self.board = board
        self.machine = machine
        self.trainings = trainings
        self._seen = {name: entry.state for name, entry in board.entries.items()}
        self._drawn = 0.0

    @contextmanager
    def showing(self) -> Iterator[Callable[[], None]]:
        """Yield what is to be called whenever something may have changed; that nobody looks any more stops no run."""
        from rich.console import Console
        from rich.live import Live

        console = Console(highlight=False)
        if not console.is_terminal:
            yield lambda: self._quietly(self._print_news)
            return
        with Live(console=console, auto_refresh=False) as live:
            yield lambda: self._quietly(lambda: self._redraw(live, console))
            live.update(self._table(console), refresh=True)

    def _quietly(self, draw: Callable[[], None]) -> None:
        with suppress(OSError):  # the terminal is closed, the reader of a pipe has gone
            draw()

    def _redraw(self, live: Live, console: Console) -> None:
        if time.monotonic() - self._drawn >= REDRAW:
            live.update(self._table(console), refresh=True)
            self._drawn = time.monotonic()

    def _print_news(self) -> None:
        for name, entry in self.board.entries.items():
            if entry.state is not self._seen[name]:
                self._seen[name] = entry.state
                print(f"{time.strftime('%H:%M:%S')} {name} {_news(name, entry)}; {self.summary()}", flush=True)

    def summary(self) -> str:
        """How much is done, and what is left."""
        count, left = self.board.count(), time_left(self.board, self.machine, self.trainings)
        parts = [f"{sum(count[state] for state in GOOD)} of {len(self.board.stages)} stages done"]
        parts += [f"{count[state]} {state.value}" for state in (State.FAILED, State.SKIPPED) if count[state]]
        if left is not None and left.seconds >= 1:
            parts.append(f"{left} left")
        return ", ".join(parts)

    def _table(self, console: Console) -> Group:
        from rich.console import Group
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("cell", *KINDS, "loss"):
            table.add_column(column, no_wrap=True)
        cells = self._cells()
        most = max(console.height - 6, 3)
        for cell, names in cells[:most]:
            table.add_row(cell, *(self._field(names.get(kind)) for kind in KINDS), _loss(cell))
        more = [f"and {len(cells) - most} more cells"] if len(cells) > most else []
        return Group(self._common(), table, *more, f"{span(time.monotonic() - self.board.begun)}: {self.summary()}")

    def _cells(self) -> list[tuple[str, dict[str, str]]]:
        """Each cell's stages by kind; those of which something runs or has failed come first."""
        cells: dict[str, dict[str, str]] = {}
        for name, stage in self.board.stages.items():
            if stage.cell:
                kind = "pretrain" if stage.kind == "pretrained" else stage.kind
                cells.setdefault(stage.cell, {})[kind] = name
        return sorted(cells.items(), key=lambda item: min(self._urgency(name) for name in item[1].values()))

    def _urgency(self, name: str) -> int:
        return URGENT.index(self.board.entries[name].state)

    def _common(self) -> str:
        names = [name for name, stage in self.board.stages.items() if not stage.cell]
        return "  ".join(f"{name}: {self._field(name)}" for name in names)

    def _field(self, name: str | None) -> str:
        if name is None:
            return ""
        entry, stage = self.board.entries[name], self.board.stages[name]
        text = entry.state.value
        if entry.state is State.RUNNING:
            point = last_point(stage.cell) if stage.kind == "pretrain" else None
            steps = f"step {point.step}/{self.trainings[stage.cell].steps} " if point else ""
            text = f"{steps}{span(entry.seconds)} {entry.place}"
        elif entry.state is State.DONE:
            text = span(entry.seconds)
        style = STYLES.get(entry.state)
        return f"[{style}]{text}[/]" if style else text


def _news(name: str, entry: Entry) -> str:
    if entry.state is State.RUNNING:
        return f"runs ({entry.place}; {log_of(name)})"
    if entry.state is State.DONE:
        return f"done in {span(entry.seconds)}"
    if entry.state is State.FAILED:
        return f"failed: {entry.why}"
    return f"skipped: it needs {entry.why}" if entry.state is State.SKIPPED else entry.state.value


def _loss(cell: str) -> str:
    point = last_point(cell)
    return f"{point.loss:.3f}" if point else ""
