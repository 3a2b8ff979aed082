"""Whether a tracker that fails slows training: ``python -m tests.faults.tracker_speed [PAIRS] [SECONDS]``.

A cell trains; the process that follows it to MLflow is stopped and let go on in turn, so that steps with and without it
lie side by side in time, whatever else the machine does. One JSON line per tracker: steps per second with it against
those without it, the median over pairs of stretches, in percent, and its middle half; and the
follower's share of a core.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults import trackers
from tests.faults.soak import write_study
from tests.faults.stages import SHORT, VANILLA, run, start

STUDY = (
    SHORT.replace("layers: 2, width: 32", "layers: 2, width: 64")
    .replace("context_length: 32", "context_length: 64")
    .replace("tokens: 5120", "tokens: 1000000000")
    .replace("log_every: 2, checkpoint_every: 4", "log_every: 1, checkpoint_every: 1000000")
    .replace("validate_every: 10", "validate_every: 1000000")
)
CURVE = Path("checkpoints", VANILLA, "curve.csv")


@contextmanager
def tracker(kind: str) -> Iterator[str]:
    """The address of a server that ``hangs`` or ``answers 500``."""
    if kind == "hangs":
        with trackers.silent() as port:
            yield f"http://127.0.0.1:{port}"
    else:
        with trackers.broken() as server:
            yield f"http://127.0.0.1:{server.server_port}"


def measure(kind: str, pairs: int, seconds: float) -> dict[str, object]:
    with tracker(kind) as uri:
        training = start("stages.pretrain", VANILLA, MLFLOW_TRACKING_URI=uri)
        try:
            follower = follower_of(training.pid)
            wait_for(lambda: CURVE.exists() and len(CURVE.read_text().splitlines()) > 100)
            time.sleep(15)  # the follower has imported MLflow
            before = cpu_seconds(follower)
            stretches = [stretch(follower, number % 2 == 1, seconds) for number in range(2 * pairs)]
            used = cpu_seconds(follower) - before
        finally:
            training.kill()
            training.communicate()
    speeds = [steps_a_second(*each) for each in stretches]
    changes = [100 * (on / off - 1) for off, on in zip(speeds[::2], speeds[1::2], strict=True)]
    low, middle, high = statistics.quantiles(changes, n=4)
    return {
        "tracker": kind,
        "steps_a_second": round(statistics.median(speeds[::2]), 1),
        "change_percent": round(middle, 2),
        "middle_half": [round(low, 2), round(high, 2)],
        "pairs": pairs,
        "seconds": seconds,
        "follower_cpu_percent": round(100 * used / (pairs * seconds), 2),
    }


def follower_of(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children")
    wait_for(lambda: any(b"pipeline.tracking" in command(child) for child in children.read_text().split()))
    return next(int(child) for child in children.read_text().split() if b"pipeline.tracking" in command(child))


def command(process: str) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def stretch(follower: int, running: bool, seconds: float) -> tuple[float, float]:
    """A while with or without the follower: its begin and end, in ms since 1970."""
    os.kill(follower, signal.SIGCONT if running else signal.SIGSTOP)
    begun = time.time()
    time.sleep(seconds)
    return 1000 * begun, 1000 * time.time()


def steps_a_second(begun: float, ended: float) -> float:
    with CURVE.open(newline="", encoding="utf-8") as opened:
        times = [int(row["time"]) for row in csv.DictReader(opened) if begun <= int(row["time"]) <= ended]
    return 1000 * (len(times) - 1) / (times[-1] - times[0])


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    pairs, seconds = int((sys.argv[1:2] or ["20"])[0]), float((sys.argv[2:3] or ["6"])[0])
    with tempfile.TemporaryDirectory() as made:
        write_study(Path(made), STUDY)
        for stage in ("stages.corpus", "stages.tokenize"):
            run(stage)
        for kind in ("hangs", "answers 500"):
            print(json.dumps(measure(kind, pairs, seconds)), flush=True)
        os.chdir("/")
