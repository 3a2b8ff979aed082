"""Stages as the pipeline runs them: processes of their own, in the working directory of the test."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.training.conftest import PARAMS

ROOT = Path(__file__).parents[2]
VANILLA, BLOCK = "vanilla-s-0", "block-s-4-base-0"
SHORT = PARAMS.replace("evaluate: {}", "evaluate: {tasks: [], long_context: [1], samples: 1}").replace(
    "benchmark:\n", "benchmark:\n  batch_sizes: [2]\n  repeats: 1\n"
)
"""The tiny study, whose evaluation and benchmark take a moment."""


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """``python -m`` these arguments, in a process group of its own; keywords join the environment."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments: str, **environment: str) -> str:
    """Run to a good end; what it wrote to stderr."""
    process = start(*arguments, **environment)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


def refused(*arguments: str, **environment: str) -> str:
    """Run to an error: exit status 1 and no traceback. The error's line."""
    process = start(*arguments, **environment)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    return line


def repro(repository: Path, **environment: str) -> str:
    """``dvc repro`` to a good end; what it wrote to stdout."""
    process = start("dvc", "repro", PYTHONPATH=str(repository), **environment)
    output, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, errors
    return output


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def leftovers(folder: Path = Path()) -> list[str]:
    """Temporary files and folders: those whose names begin with a dot."""
    hidden = (path for path in folder.rglob(".*") if not {".git", ".dvc"} & set(path.parts))
    return sorted(str(path) for path in hidden if path.name not in (".gitignore", ".dvcignore"))


def whole_results() -> list[str]:
    """The result files there are, each of which is read: half a file is an error."""
    paths = sorted(Path("results").rglob("*.json"))
    for path in paths:
        json.loads(path.read_text(encoding="utf-8"))
    return [str(path) for path in paths]
