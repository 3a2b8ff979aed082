"""Workers as processes of their own, that tests start, share and kill."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from pipeline.study import Study
from pipeline.study.search_space import trial_study

ROOT = Path(__file__).parents[2]
GRACE = 3.0
WORK = f"""
from pipeline.search import storage
storage.HEARTBEAT, storage.GRACE = 0.3, {GRACE}
from pipeline.command import command
from pipeline.search.worker import Worker
from pipeline.study import load_study
command(lambda: Worker(load_study()).run())()
"""


def start() -> subprocess.Popen[str]:
    """A worker of the working directory's search, with signs of life so often that a test need not wait."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", WORK], env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_state(study: Study, point: dict[str, int]) -> Path:
    """The point's checkpoint folder, once a state to resume from lies there."""
    _, cell = trial_study(study, point)
    folder = Path("checkpoints") / cell.name
    while not list(folder.glob("resume/*.ckpt")):
        time.sleep(0.01)
    return folder
