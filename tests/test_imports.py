"""Who may import whom (docs/architecture.md), read from the source."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMON = {"base", "device", "results", "study"}
ALLOWED = {
    "study": {"models"},
    "data": set(),
    "models": set(),
    "interop": {"models"},
    "generation": {"models"},
    "training": {"models", "data", "interop"},
    "checkpoints": {"models", "data"},
    "evaluation": {"checkpoints", "generation", "models", "data"},
    "benchmark": {"checkpoints", "generation", "models", "data", "interop"},
    "analysis": {"models"},
    "search": {"training", "benchmark", "evaluation", "models", "data", "tracking"},
    "tracking": set(),
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
        allowed = ALLOWED[part] | {part} | (COMMON - ({"device", "study", "results"} if part == "models" else set()))
        assert used <= allowed, f"{path} imports {used - allowed}"


def test_nothing_in_the_pipeline_imports_a_stage(root: Path) -> None:
    for path in sources(root):
        assert not any(name.split(".")[0] == "stages" for name in imports(ast.parse(path.read_text()), True)), path


@pytest.mark.parametrize("module", LOADS)
def test_a_module_loads_no_heavy_library_that_it_may_not_need(root: Path, module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(root)}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) <= LOADS[module]
