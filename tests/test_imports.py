"""Who may import whom (docs/architecture.md), read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

COMMON = {"errors", "files", "paths", "results", "study", "environment", "command"}
ALLOWED = {
    "study": {"models"},
    "data": set(),
    "models": set(),
    "interop": {"models"},
    "generation": {"models"},
    "training": {"models", "data", "tracking"},
    "evaluation": {"generation", "models", "data"},
    "benchmark": {"generation", "models", "data"},
    "analysis": {"models"},
    "search": {"training", "benchmark", "evaluation", "models", "data", "tracking"},
    "tracking": set(),
}
HEAVY = {"lightning", "mlflow", "lm_eval", "matplotlib", "transformers", "datasets", "optuna"}
TORCH_FREE = (
    "study",
    "analysis",
    "results.py",
    "plan.py",
    "tracking.py",
    "cli.py",
    "models/config.py",
    "models/costs.py",
)


def imports(tree: ast.AST, everywhere: bool) -> set[str]:
    """Modules imported by a file: at its top level alone, or everywhere."""
    nodes = ast.walk(tree) if everywhere else ast.iter_child_nodes(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "pipeline" else set()
    return found


def sources(root: Path) -> list[Path]:
    return sorted(root.glob("pipeline/**/*.py")) + sorted(root.glob("stages/*.py"))


@pytest.mark.parametrize("part", ALLOWED)
def test_parts_import_only_what_the_architecture_allows(root: Path, part: str) -> None:
    folder = root / "pipeline" / part
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    for path in files:
        used = {
            name.split(".")[1] for name in imports(ast.parse(path.read_text()), True) if name.startswith("pipeline.")
        }
        allowed = ALLOWED[part] | {part} | (COMMON - ({"study"} if part == "models" else set()))
        assert used <= allowed, f"{path} imports {used - allowed}"


def test_nothing_in_the_pipeline_imports_a_stage(root: Path) -> None:
    for path in sources(root):
        assert not any(name.split(".")[0] == "stages" for name in imports(ast.parse(path.read_text()), True)), path


def test_heavy_libraries_are_imported_where_they_are_used(root: Path) -> None:
    for path in sources(root):
        top = {name.split(".")[0] for name in imports(ast.parse(path.read_text()), False)}
        assert not top & HEAVY, f"{path} imports {top & HEAVY} at its top level"


@pytest.mark.parametrize("name", TORCH_FREE)
def test_planning_and_reporting_do_not_wait_for_torch(root: Path, name: str) -> None:
    path = root / "pipeline" / name
    for source in path.rglob("*.py") if path.is_dir() else [path]:
        top = {name.split(".")[0] for name in imports(ast.parse(source.read_text()), False)}
        assert "torch" not in top, source
