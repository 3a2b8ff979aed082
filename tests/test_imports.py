"""Who may import whom (docs/architecture.md), read from the source."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

TABLE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## Who may import whom")[2]
ALLOWED = {
    part: {name for name in allowed.split(", ") if name}
    for part, allowed in re.findall(r"^\| (\w+) \| ?([\w, ]*?) ?\|$", TABLE, re.MULTILINE)[1:]
}
HEAVY = ["torch", "lightning", "mlflow", "lm_eval", "matplotlib", "transformers", "datasets", "optuna"]
LOADS = {
    "pipeline.commands.main": set(),
    "pipeline.commands.plan": set(),
    "pipeline.tracking": set(),
    "pipeline.results.records": set(),
    "pipeline.data": set(),
    "stages.check": set(),
    "stages.corpus": set(),
    "stages.tokenize": set(),
    "stages.search": set(),
    "stages.tune": set(),
    "stages.report": {"matplotlib"},
    "stages.pretrain": {"torch"},
    "stages.evaluate": {"torch"},
    "stages.benchmark": {"torch"},
}


def imports(tree: ast.AST, everywhere: bool) -> set[str]:
    """Modules imported by a file: at its top level alone, or everywhere."""
    nodes = ast.walk(tree) if everywhere else ast.iter_child_nodes(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "pipeline" else set()
    return found


def sources(root: Path) -> list[Path]:
    return sorted(root.glob("pipeline/**/*.py")) + sorted(root.glob("stages/*.py"))


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def import_graph(root: Path) -> dict[str, set[str]]:
    """Each module of the pipeline with those that it imports, in functions and under TYPE_CHECKING too.

    ``from package import name`` imports the module of that name if there is one, and else the package.
    """
    files = {module_name(path, root): path for path in root.glob("pipeline/**/*.py")}
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        used = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                used |= {inner[name] if inner[name] in files else node.module for name in inner}
        graph[name] = (used & files.keys()) - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that each lead to each other."""
    leads = {name: reached(graph, name) for name in graph}
    groups = {tuple(sorted(other for other in leads[name] if name in leads[other])) for name in graph}
    return sorted(list(group) for group in groups if group)


def reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name]
    return found


def test_no_import_leads_back_to_where_it_began(root: Path) -> None:
    assert circles(import_graph(root)) == []


def test_a_circle_is_found_wherever_its_imports_stand(tmp_path: Path) -> None:
    texts = {
        "__init__": "",
        "a": "from pipeline import b",
        "b": "def f():\n    from pipeline.c import g",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pipeline.a",
        "d": "from pipeline.a import f",
    }
    (tmp_path / "pipeline").mkdir()
    for name, text in texts.items():
        (tmp_path / f"pipeline/{name}.py").write_text(text)
    assert circles(import_graph(tmp_path)) == [["pipeline.a", "pipeline.b", "pipeline.c"]]


ROOMS = ("rows", "statistics", "figures", "page")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_the_analysis_imports_only_those_before_it(root: Path, room: str) -> None:
    later = {f"pipeline.analysis.{name}" for name in ROOMS[ROOMS.index(room) + 1 :]}
    for name, used in import_graph(root).items():
        if name.startswith(f"pipeline.analysis.{room}"):
            assert [each for each in used if any(each.startswith(other) for other in later)] == [], name


def used_by(part: str) -> set[str]:
    """The other parts of the pipeline that a part imports, anywhere."""
    folder = ROOT / "pipeline" / part
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    names = {name for path in files for name in imports(ast.parse(path.read_text(encoding="utf-8")), True)}
    return {name.split(".")[1] for name in names if name.startswith("pipeline.")} - {part}


@pytest.mark.parametrize("part", ALLOWED)
def test_parts_import_only_what_the_architecture_allows(part: str) -> None:
    assert used_by(part) - ALLOWED[part] == set()


def test_the_architecture_names_every_part_and_allows_nothing_that_is_not_used(root: Path) -> None:
    parts = {path.stem for path in (root / "pipeline").iterdir() if not path.name.startswith("__")} - {"commands"}
    assert ALLOWED.keys() == parts
    assert {part: ALLOWED[part] - used_by(part) for part in parts} == {part: set() for part in parts}


def test_nothing_in_the_pipeline_imports_a_stage(root: Path) -> None:
    for path in sources(root):
        assert not any(name.split(".")[0] == "stages" for name in imports(ast.parse(path.read_text()), True)), path


@pytest.mark.parametrize("module", LOADS)
def test_a_module_loads_no_heavy_library_that_it_may_not_need(root: Path, module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(root)}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) <= LOADS[module]
