"""A DVC pipeline of the study's shape, whose stages are a few lines of Python that end at once."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

STAGE = """
import os, signal, sys, time
from pathlib import Path
kind, name = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
with open("ran.txt", "a") as ran:
    ran.write(f"{kind} {name} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\\n")
told = Path("told", f"{kind}-{name}")
exec(told.read_text() if told.exists() else "")
folder = {"check": "data/causes", "tokenize": "data/tokens", "pretrain": f"checkpoints/{name}", "report": "report"}
out = Path(folder.get(kind, f"results/{kind}"), f"{name}.json" if kind == "evaluate" else "out")
out.parent.mkdir(parents=True, exist_ok=True)
if kind == "check":
    Path("data/causes").joinpath("tokens").write_text(Path("tokens.txt").read_text())
    for cell in ("a", "b"):
        Path("data/causes", cell).write_text(Path(f"{cell}.txt").read_text())
out.write_text(f"{kind} {name} {Path(f'{name}.txt').read_text() if name else ''}")
"""
PIPELINE = """
stages:
  check:
    cmd: python stage.py check
    always_changed: true
    outs:
      - data/causes: {cache: false, persist: true}
  tokenize:
    cmd: python stage.py tokenize
    deps: [data/causes/tokens]
    outs: [data/tokens]
  pretrain-x:
    foreach: &cells [a, b]
    do:
      cmd: python stage.py pretrain ${item}
      deps:
        - data/causes/${item}
        - data/tokens
      outs:
        - checkpoints/${item}: {persist: true}
  evaluate-x:
    foreach: *cells
    do:
      cmd: python stage.py evaluate ${item}
      deps:
        - checkpoints/${item}
      outs:
        - results/evaluate/${item}.json
  report:
    cmd: python stage.py report
    deps: [results]
    outs: [report]
"""


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("pipeline")
    Repo.init(str(folder), no_scm=True).close()
    (folder / "stage.py").write_text(textwrap.dedent(STAGE))
    (folder / "dvc.yaml").write_text(PIPELINE)
    for name in ("tokens", "a", "b"):
        (folder / f"{name}.txt").write_text(f"{name} 0")
    (folder / "told").mkdir()
    return folder


@pytest.fixture
def pipeline(_prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with the pipeline; ``told/KIND-CELL`` holds Python that its stage runs first."""
    folder = tmp_path / "pipeline"
    shutil.copytree(_prepared, folder)
    monkeypatch.chdir(folder)
    yield folder
    shutil.rmtree(folder)


def status() -> dict[str, list[str]]:
    """What `dvc status` finds."""
    from dvc.repo import Repo

    with Repo() as repo:
        found: dict[str, list[str]] = repo.status()
    return found


NOTHING = {"check": ["always changed"]}
"""That there is nothing to do."""


def ran(kind: str = "") -> list[str]:
    """The stages that ran, in order, ``kind cell devices`` each; forgotten once they are told."""
    path = Path("ran.txt")
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in lines if line.startswith(kind)]
