"""docs/extending.md is true: its changes, applied to a copy of the repository, make kinds that pass every test."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.documents import apply_diff, snippets

PAGE = "docs/extending.md"
CELLS = ["vanilla-s_gated-0", "block-s-4-mean-0", "block-s-4-broadcast-0"]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A copy of the repository, changed as the page says, with the page's study on few tokens."""
    folder = tmp_path_factory.mktemp("extended")
    for part in ("pipeline", "tests", "stages"):
        shutil.copytree(root / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", folder)
    for snippet in snippets("diff", root / PAGE):
        apply_diff(snippet, folder)
    (study,) = snippets("yaml", root / PAGE)
    values, change = yaml.safe_load((root / "tests/params.yaml").read_text()), yaml.safe_load(study.text)
    values["sizes"] |= change["sizes"]
    values["variants"] = change["variants"]
    values["pretrain"] |= {"tokens": 8192, "batch_size": 2, "warmup_steps": 2, "validation_tokens": 1024}
    values["evaluate"] |= {"tasks": ["halves"], "max_documents": 2}
    values["benchmark"] |= {"settings": {"short": {"prompt": 8, "new_tokens": 8}}, "batch_sizes": [2]}
    values["grid"]["vanilla"] = change["grid"]["vanilla"]
    values["grid"]["block"] = {"size": ["s"], "block_length": [4], **change["grid"]["block"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder


def test_the_table_names_the_files_that_each_addition_edits(root: Path) -> None:
    page = (root / PAGE).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (An? [\w ]+) \| (.+) \| (\d) \|$", page, re.MULTILINE)
    named = {addition: (set(re.findall(r"`(.+?)`", files)), int(tests)) for addition, files, tests in rows}
    edited = {}
    for section in page.split("\n## ")[1:-1]:
        files = set(re.findall(r"^\+\+\+ (.+)$", section, re.MULTILINE))
        places = (name if (root / name).exists() else name.rpartition("/")[0] + "/" for name in files)
        code = {place.removeprefix("pipeline/") for place in places if place.startswith("pipeline/")}
        assert 1 <= len(code) <= 3
        edited[section.partition("\n")[0]] = (code, len(files) - len(code))
    assert named == edited


def run(folder: Path, *arguments: str) -> str:
    """``python -m`` these arguments with the copy's code."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    ended = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_the_new_kinds_pass_the_tests_of_models_and_generation(extended: Path) -> None:
    files = [f"tests/models/test_{name}.py" for name in ("models", "costs", "config")]
    files.append("tests/generation/test_engine.py")
    files.append("tests/evaluation/test_local_tasks.py")
    kinds = "mean or broadcast or gated or halves"
    printed = run(extended, "pytest", "-p", "no:cacheprovider", "-k", kinds, *files)
    (passed,) = re.findall(r"^(\d+) passed", printed, re.MULTILINE)
    assert int(passed) > 60


@pytest.mark.slow
def test_the_new_metric_is_in_the_record_and_in_mlflow(extended: Path) -> None:
    printed = run(extended, "pytest", "-p", "no:cacheprovider", "-k", "bytes", "tests/evaluation/test_cell.py")
    assert re.findall(r"^(\d+) passed", printed, re.MULTILINE) == ["1"]


@pytest.mark.slow
def test_the_new_optimizer_passes_the_tests_of_training(extended: Path) -> None:
    chosen = ("-k", "lion", "tests/training/test_optimizers.py")
    printed = run(extended, "pytest", "-p", "no:cacheprovider", *chosen)
    (passed,) = re.findall(r"^(\d+) passed", printed, re.MULTILINE)
    assert int(passed) > 8


def test_a_study_plans_them(extended: Path) -> None:
    printed = run(extended, "pipeline", "plan")
    assert [cell for cell in CELLS if f"{cell} " not in printed] == []


@pytest.mark.slow
def test_the_changed_code_is_typed(extended: Path) -> None:
    run(extended, "mypy")


@pytest.mark.slow
def test_a_study_of_them_reaches_its_report(extended: Path) -> None:
    for stage in ("check", "corpus", "tokenize"):
        run(extended, f"stages.{stage}")
    cells = [entry["cell"] for entry in json.loads(run(extended, "pipeline", "plan", "--json"))]
    for cell in cells:
        for stage in ("pretrain", "evaluate", "benchmark"):
            run(extended, f"stages.{stage}", cell)
    run(extended, "stages.report")
    figures = {path.stem for path in (extended / "report/figures").glob("*.svg")}
    assert {"ablation_embedder", "ablation_token_decoder"} <= figures
    header, *_ = (extended / "report/results.csv").read_text(encoding="utf-8").splitlines()
    assert "bytes_per_token" in header.split(",")
