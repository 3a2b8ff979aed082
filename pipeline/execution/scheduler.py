"""Stages side by side, each as soon as what it needs is up to date and there is a place for it."""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from types import FrameType
from typing import IO

from pipeline.base.device_failure import DeviceFailure
from pipeline.base.errors import UserError
from pipeline.execution.board import GOOD, Board, State, log_of
from pipeline.execution.failure import failure_line
from pipeline.execution.processes import FOLDER, RUN, STAGE, kill_left, signal_group, start
from pipeline.execution.repository import Begun, Repository
from pipeline.execution.resources import Machine
from pipeline.execution.stages import dependents

PAUSE = 0.05
"""Seconds between two looks at the processes."""

TRIES = {-signal.SIGKILL: 2, DeviceFailure.status: DeviceFailure.tries}
"""How often a stage is started that ends so: nothing says that it would again."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Order:
    """``work``: how long a stage takes, beside others of its kind, in any unit; the longest starts first.

    ``after``: stages that a stage had better not run beside, though it needs none of them.
    """

    work: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class Running:
    """A stage's process, and where its output begins in its log."""

    process: subprocess.Popen[bytes]
    log: IO[str]
    offset: int
    tries: int


class Scheduler:
    """Brings the stages of ``board`` up to date. ``show`` is told that something may have changed, many times."""

    def __init__(
        self, repository: Repository, machine: Machine, board: Board, order: Order, show: Callable[[], None]
    ) -> None:
        self.repository = repository
        self.machine = machine
        self.board = board
        self.order = order
        self.show = show
        self.signals = 0
        self._told = 0
        self._running: dict[str, Running] = {}
        self._ready: list[str] = []
        self._sorter = TopologicalSorter({name: stage.needs for name, stage in board.stages.items()})

    def run(self) -> None:
        """Run until nothing is left that can run, or, after a signal, until all that runs has ended."""
        self._sorter.prepare()
        with self._listening():
            self._advance()
            while self._running:
                time.sleep(PAUSE)
                self._pass_on()
                for name in [name for name, running in self._running.items() if running.process.poll() is not None]:
                    self._end(name)
                    self._advance()
                self.show()

    def _advance(self) -> None:
        """Settle what is up to date, and start what there is a place for."""
        while not self.signals:
            new = self._sorter.get_ready()
            for name in new:
                self._attempt(name, self._decide)
            started = [name for name in self._by_priority() if self._try(name)]
            self._ready = [name for name in self._ready if name not in started]
            if not new and not started:
                return

    def _attempt(self, name: str, action: Callable[[str], None]) -> None:
        """Do something about a stage; DVC's error, or the disk's, is the stage's failure and nobody else's."""
        try:
            action(name)
        except (UserError, OSError) as error:
            self._fail(name, str(error))

    def _decide(self, name: str) -> None:
        if self.repository.changed(name):
            self._ready.append(name)
        else:
            self._settle(name, State.CURRENT)

    def _by_priority(self) -> list[str]:
        ready = [name for name in self._ready if all(map(self.board.settled, self.order.after.get(name, ())))]
        return sorted(ready, key=lambda name: -self.order.work.get(name, 0))

    def _try(self, name: str) -> bool:
        """Start the stage, or restore it, if there is a place for it."""
        taken = [place for other in self._running if (place := self.board.entries[other].place) is not None]
        place = self.machine.place(self.board.stages[name].kind, taken)
        if place is None or self.signals:
            return False
        self.board.entries[name].place = place
        self._attempt(name, self._begin)
        return True

    def _begin(self, name: str) -> None:
        begun, entry = self.repository.begin(name), self.board.entries[name]
        if begun is Begun.TO_RUN:
            entry.state, entry.begun = State.RUNNING, time.monotonic()
            self._start(name)
        else:
            self._settle(name, State.CURRENT if begun is Begun.CURRENT else State.RESTORED)

    def _start(self, name: str, tries: int = 1) -> None:
        place, path = self.board.entries[name].place, log_of(name)
        assert place is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("a", encoding="utf-8")
        command = self.board.stages[name].command
        print(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {command} ({place})", file=log, flush=True)
        process = start(shlex.split(command), log, self.repository.environment(name) | place.environment)
        self._running[name] = Running(process, log, path.stat().st_size, tries)
        self.show()

    def _end(self, name: str) -> None:
        """Take note of a stage whose process has ended."""
        running = self._running.pop(name)
        running.log.close()
        code = running.process.returncode
        if code:
            kill_left({FOLDER: self.repository.root, RUN: None, STAGE: name})
        if running.tries < TRIES.get(code, 1) and not self.signals:
            self._attempt(name, lambda name: self._start(name, running.tries + 1))
            return
        self.board.entries[name].ended = time.monotonic()
        if code == 0:
            self._attempt(name, self._note)
        elif self.signals:
            self.board.entries[name].state = State.STOPPED
        else:
            self._fail(name, failure_line(self.board.stages[name], code, running.offset))

    def _note(self, name: str) -> None:
        self.repository.note(name)
        self._settle(name, State.DONE)

    def _fail(self, name: str, why: str) -> None:
        self.board.entries[name].state, self.board.entries[name].why = State.FAILED, why
        for dependent in dependents(self.board.stages, name):
            if self.board.entries[dependent].state is State.WAITING:
                self.board.entries[dependent].state, self.board.entries[dependent].why = State.SKIPPED, name

    def _settle(self, name: str, state: State) -> None:
        assert state in GOOD
        self.board.entries[name].state = state
        self._sorter.done(name)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Count signals rather than end by them, so that nothing is torn."""
        previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1

    def _pass_on(self) -> None:
        """The first signal asks every stage to save and stop, as Ctrl-C does; another one kills them."""
        if self.signals > self._told:
            for running in self._running.values():
                signal_group(running.process, signal.SIGKILL if self._told else signal.SIGINT)
            self._told = self.signals
