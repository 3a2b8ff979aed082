"""Every stage, killed at random moments again and again: what a rerun leaves is whole and, where it can be, equal."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.base import paths
from pipeline.results.records import BenchmarkResult, EvaluateResult, PretrainResult, read_result
from tests.faults.stages import BLOCK, VANILLA, hashes, leftovers, run, start, whole_results

KILLS = 102
EXACT = ("data/corpus", "data/tokens", f"checkpoints/{VANILLA}", f"checkpoints/{BLOCK}")
VARYING = ("curve.csv", "result.json", "config.json")  # times and speeds
TARGETS = [
    ("stages.corpus",),
    ("stages.tokenize",),
    ("stages.pretrain", VANILLA),
    ("stages.pretrain", BLOCK),
    ("stages.evaluate", BLOCK),
    ("stages.benchmark", BLOCK),
    ("stages.report",),
]


@dataclass
class Kills:
    """Kills a stage at a moment of its usual run time, drawn uniformly; ``counts`` has those that hit a living one."""

    draw: random.Random
    seconds: dict[tuple[str, ...], float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def time(self, target: tuple[str, ...]) -> None:
        begun = time.monotonic()
        run(*target)
        self.seconds[target] = time.monotonic() - begun

    def kill(self, target: tuple[str, ...]) -> None:
        process = start(*target)
        try:
            process.communicate(timeout=self.draw.uniform(0.3, 1) * self.seconds[target])
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            self.counts[" ".join(target)] += 1


def forget(target: tuple[str, ...]) -> None:
    """Remove what the stage writes, as DVC does before it runs a stage (a checkpoint it keeps)."""
    stage = target[0].removeprefix("stages.")
    if stage == "pretrain":
        (paths.checkpoint(target[1]) / "result.json").unlink(missing_ok=True)
        (paths.checkpoint(target[1]) / "model.safetensors").unlink(missing_ok=True)
        return
    if stage in ("evaluate", "benchmark"):
        paths.result(stage, target[1]).unlink(missing_ok=True)
        return
    shutil.rmtree({"corpus": "data/corpus", "tokenize": "data/tokens", "report": "report"}[stage], ignore_errors=True)


def exact() -> dict[str, str]:
    """Hashes of all that has no time in it."""
    return {
        f"{folder}/{name}": value
        for folder in EXACT
        for name, value in hashes(Path(folder)).items()
        if name not in VARYING
    }


@pytest.fixture
def own_data(study: Path) -> None:
    """Data that the stages themselves write."""
    (study / "data").unlink()
    for target in [*TARGETS, ("stages.evaluate", VANILLA), ("stages.benchmark", VANILLA)]:
        if target != ("stages.report",):
            run(*target)


@pytest.mark.slow
def test_a_hundred_kills(own_data: None) -> None:
    expected, kills = exact(), Kills(random.Random(0))
    for target in TARGETS:
        forget(target)
        kills.time(target)
    rounds = 0
    while kills.counts.total() < KILLS:
        target = TARGETS[rounds % len(TARGETS)]
        forget(target)
        for _ in range(3):
            kills.kill(target)
            whole_results()
        run(*target)
        assert exact() == expected, f"after kills of {target}"
        rounds += 1
    for cell in (VANILLA, BLOCK):
        read_result(paths.result("pretrain", cell), PretrainResult, "pretrain")
    read_result(paths.result("evaluate", BLOCK), EvaluateResult, "evaluate")
    read_result(paths.result("benchmark", BLOCK), BenchmarkResult, "benchmark")
    assert (Path("report") / "index.html").stat().st_size > 0
    print(f"{kills.counts.total()} kills: {dict(kills.counts)}")
    assert leftovers() == []
