"""How far a run is: each stage's state, for the scheduler to write and the display to read."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from pipeline.base.paths import LOGS
from pipeline.execution.resources import Place
from pipeline.execution.stages import Stages


class State(Enum):
    """Where a stage stands; its value is the word for it."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    CURRENT = "up to date"
    RESTORED = "restored from DVC's cache"
    STOPPED = "stopped"
    FAILED = "failed"
    SKIPPED = "skipped"


GOOD = (State.DONE, State.CURRENT, State.RESTORED)


@dataclass
class Entry:
    """A stage's state. ``begun`` and ``ended`` by the monotonic clock; ``why`` it failed or was skipped."""

    state: State = State.WAITING
    place: Place | None = None
    begun: float = 0.0
    ended: float | None = None
    why: str = ""

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return (time.monotonic() if self.ended is None else self.ended) - self.begun


@dataclass
class Board:
    """The run's stages and their entries."""

    stages: Stages
    entries: dict[str, Entry] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.entries = {name: Entry() for name in self.stages}

    def those(self, *states: State) -> list[str]:
        """The stages in one of these states."""
        return [name for name, entry in self.entries.items() if entry.state in states]

    def count(self) -> Counter[State]:
        """Stages by state."""
        return Counter(entry.state for entry in self.entries.values())

    def settled(self, name: str) -> bool:
        """Whether nothing will happen to the stage any more in this run, or it is not part of it."""
        return name not in self.entries or self.entries[name].state not in (State.WAITING, State.RUNNING)


def log_of(name: str) -> Path:
    """Where a stage's output goes."""
    return LOGS / "run" / f"{name}.log"
