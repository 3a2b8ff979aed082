"""How long stages have taken on this machine: a line for each that came to a good end, in logs/times.jsonl."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pipeline.base.paths import LOGS
from pipeline.execution.estimate import Rates
from pipeline.execution.stages import kind_of

TIMES = LOGS / "times.jsonl"


@dataclass(frozen=True)
class Timed:
    """A stage, the machine that it ran on, its seconds from start to end, and the training FLOPs that it did."""

    stage: str
    machine: str
    seconds: float
    flops: float


def note_time(stage: str, seconds: float, flops: float) -> None:
    """Add a stage's line; a disk that takes none costs the estimate alone."""
    with suppress(OSError):
        TIMES.parent.mkdir(exist_ok=True)
        with TIMES.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(dataclasses.asdict(Timed(stage, platform.node(), seconds, flops))) + "\n")


def rates_here() -> Rates:
    """What stages take on this machine, by the last time of each."""
    last = {timed.stage: timed for timed in _timed() if timed.machine == platform.node()}
    trained = [timed for timed in last.values() if timed.flops]
    seconds = {
        kind: [timed.seconds for timed in last.values() if kind_of(timed.stage) == kind]
        for kind in ("evaluate", "benchmark")
    }
    return Rates.of(
        sum(timed.flops for timed in trained),
        sum(timed.seconds for timed in trained),
        seconds["evaluate"],
        seconds["benchmark"],
    )


def _timed() -> Iterator[Timed]:
    """The lines, but for those that a kill has cut off."""
    with suppress(OSError), TIMES.open(encoding="utf-8") as opened:
        for line in opened:
            with suppress(ValueError, TypeError):
                yield Timed(**json.loads(line))
