"""Memory that really runs out: a limit on the address space, and the errors of torch and numpy as they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.stages import ROOT, SHORT, VANILLA, leftovers, run, whole_results

LIMITED = """
import resource, runpy, sys
import torch, pipeline.training.lightning.trainer, pipeline.benchmark.cell, pipeline.evaluation.cell
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]), -1))
sys.argv = sys.argv[2:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__")
finally:  # what libraries do at their exit is not of the stage
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
"""
MIB = 2**20
pytestmark = pytest.mark.slow
MEMORY = {"pretrain": 1500 * MIB, "benchmark": 1500 * MIB, "evaluate": 8 * MIB}
LARGE = {
    "pretrain": ("batch_size: 8", "batch_size: 40000"),
    "benchmark": ("batch_sizes: [2]", "batch_sizes: [400000]"),
}
ADVICE = {
    "pretrain": "out of memory with micro-batches of 40000 sequences; try hardware.micro_batch_size below 40000, ",
    "benchmark": "out of memory at batch 400000 in setting short; take a smaller benchmark.batch_sizes, ",
    "evaluate": f"cell {VANILLA}: out of memory in evaluation; try evaluate.precision: bf16, ",
}


def limited(stage: str, extra: int) -> subprocess.CompletedProcess[str]:
    """Run a stage that may take ``extra`` bytes of address space beside its libraries."""
    command = [sys.executable, "-c", LIMITED, str(extra), f"stages.{stage}", VANILLA]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("stage", ["pretrain", "benchmark", "evaluate"])
def test_a_stage_that_runs_out_of_memory(study: Path, stage: str) -> None:
    """One line that names the keys that help; no result; with the key put right, the stage ends well."""
    if stage != "pretrain":
        run("stages.pretrain", VANILLA)
    before = whole_results()
    text = SHORT.replace(*LARGE[stage]) if stage in LARGE else SHORT
    Path("params.yaml").write_text(text.replace("warmup_steps: 4", "warmup_steps: 0"))
    ended = limited(stage, MEMORY[stage])
    assert ended.returncode == 1, ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if "memory" in line] or [ended.stderr]
    assert line.startswith(f"error: {ADVICE[stage]}"), line
    assert "Traceback" not in ended.stderr
    assert whole_results() == before
    assert leftovers() == []
    Path("params.yaml").write_text(SHORT)
    run(f"stages.{stage}", VANILLA)
    assert f"results/{stage}/{VANILLA}.json" in whole_results()


@pytest.mark.parametrize("mebibytes", [3.5, 4, 4.5, 5, 5.5])
def test_an_evaluation_that_runs_out_wherever_it_is(study: Path, mebibytes: float) -> None:
    """In an import, a system call, or the mapping of weights: each has an error of its own."""
    run("stages.pretrain", VANILLA)
    before = whole_results()
    ended = limited("evaluate", int(mebibytes * MIB))
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    assert re.fullmatch(rf"error: (cell {VANILLA}: )?out of memory .*", ended.stderr.splitlines()[-1])
    assert whole_results() == before
