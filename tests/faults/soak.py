"""`make soak`: the tiny study over and over while something goes wrong at random, from a fixed seed.

Each round reruns one stage, whose outputs are removed first, and does to it what :data:`FAULTS` has; then it is run to
its end without a fault. At the end the growth inside stages is measured. The summary, one JSON line, has what happened;
the exit status is 1 if anything was lost or grows.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults import growth
from tests.faults.stages import SHORT, VANILLA, leftovers, run, start, whole_results
from tests.faults.test_kills import TARGETS, exact, forget
from tests.training.conftest import WORDS

FAULTS = ("kill", "terminate", "interrupt", "tracker away", "disk full", "none")
AWAY = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
FULL = (
    "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1)); sys.argv = sys.argv[2:];"
    "runpy.run_module(sys.argv[0], run_name='__main__')"
)


def write_study(folder: Path, params: str) -> None:
    """A study and its text in ``folder``, the working directory from then on."""
    os.chdir(folder)
    Path("text").mkdir()
    draw = random.Random(0)
    for number in range(40):
        text = " ".join(draw.choices(WORDS, weights=range(len(WORDS), 0, -1), k=200))
        Path("text", f"{number}.txt").write_text(text, encoding="utf-8")
    Path("params.yaml").write_text(params, encoding="utf-8")


def prepare(folder: Path) -> None:
    """The study, run once without faults, in the working directory."""
    write_study(folder, SHORT)
    for target in [*TARGETS[:-1], ("stages.evaluate", VANILLA), ("stages.benchmark", VANILLA), TARGETS[-1]]:
        run(*target)


def suffer(target: tuple[str, ...], fault: str, draw: random.Random) -> None:
    """Run a stage with a fault, however it ends; a traceback in what it says is a failure."""
    if fault == "disk full":
        command = ("-c", FULL, str(draw.randrange(2_000, 60_000)), *target)
        process = subprocess.Popen([sys.executable, *command], stdout=-1, stderr=-1, text=True, env=environment())
    else:
        process = start(*target, **AWAY if fault == "tracker away" else {})
    try:
        _, errors = process.communicate(timeout=draw.uniform(1, 8) if fault in SIGNALS else 120)
    except subprocess.TimeoutExpired:
        process.send_signal(SIGNALS[fault])
        _, errors = process.communicate(timeout=120)
    if fault not in SIGNALS:
        assert "Traceback" not in errors, errors


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


def soak(minutes: float, seed: int = 0) -> dict[str, object]:
    draw, counts = random.Random(seed), Counter[str]()
    expected, results = exact(), whole_results()
    begun, files = time.monotonic(), open_files()
    while time.monotonic() - begun < 60 * minutes:
        target, fault = draw.choice(TARGETS), draw.choice(FAULTS)
        forget(target)
        suffer(target, fault, draw)
        whole_results()
        run(*target)
        assert exact() == expected, f"{fault} in {target} changed an output"
        assert whole_results() == results, f"{fault} in {target} lost a result"
        assert leftovers() == [], f"{fault} in {target} left {leftovers()}"
        counts[fault] += 1
    minutes, more, temporary = (time.monotonic() - begun) / 60, open_files() - files, leftovers()
    grown = growth.measure() if Path("/proc/self/statm").exists() else []
    assert all(stage.bounded for stage in grown), grown
    return {
        "minutes": round(minutes, 1),
        "rounds": counts.total(),
        "faults": dict(counts),
        "open_files_more": more,
        "largest_stage_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "temporary_files": len(temporary),
        "growth": [dataclasses.asdict(stage) for stage in grown],
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        prepare(Path(made))
        print(json.dumps(soak(float(sys.argv[1]))))
        os.chdir("/")
