"""The code that decides a result, by its meaning: comments, docstrings and layout leave its hash as it is."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.base.files import sha256

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "stages")
TEMPLATES = (".html", ".css", ".js")


def code_of(roots: Collection[str], without: Collection[str] = (), alone: Collection[str] = ()) -> dict[str, str]:
    """The hash of each module that ``roots`` import, themselves included, directly or not.

    Imports inside functions count, those for type checkers do not; a name that a package only passes on counts as an
    import of the module that defines it. Templates beside a module count too. ``without`` names modules, or
    packages, that are left out with what they alone import, unless they are roots; ``alone`` modules that count without
    what they import.
    """
    hashes: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        left_out = module not in roots and any(f"{module}.".startswith(f"{name}.") for name in without)
        if module not in hashes and not left_out:
            hashes |= _hashes(module)
            waiting += imports(module) if module not in alone else []
    return dict(sorted(hashes.items()))


@cache
def _hashes(module: str) -> dict[str, str]:
    """A module's, and its templates'."""
    templates = {str(file.relative_to(ROOT)): sha256(file)[:12] for file in _beside(module)}
    return {module: meaning(_path(module).read_text(encoding="utf-8")), **templates}


def meaning(source: str) -> str:
    """A hash of what a module does, the same in every version of Python."""
    return hashlib.sha256(repr(_plain(ast.parse(source))).encode()).hexdigest()[:12]


@cache
def imports(module: str) -> frozenset[str]:
    """The project's modules that a module imports, at its top or in a function."""
    return frozenset(_imported(_tree(module)))


def _plain(value: Any) -> Any:
    """A syntax tree as lists; what newer versions of Python add to nodes is empty in code that older ones run."""
    if isinstance(value, list):
        return [_plain(item) for item in value if not _says_nothing(item)]
    if not isinstance(value, ast.AST):
        return value
    if isinstance(value, ast.JoinedStr):  # Python 3.12 ends some with an empty text
        value.values = [part for part in value.values if getattr(part, "value", None) != ""]
    fields = ((name, _plain(item)) for name, item in ast.iter_fields(value) if name not in ("ctx", "kind"))
    return [type(value).__name__, *(field for field in fields if field[1] not in (None, []))]


def _says_nothing(node: object) -> bool:
    """Whether a statement is a docstring, of whatever it stands under, or for type checkers alone."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return isinstance(node.value.value, str)
    return _for_type_checkers(node)


def _for_type_checkers(node: object) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imported(node: ast.AST) -> Iterator[str]:
    if _for_type_checkers(node):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if _is_own(alias.name))
    elif isinstance(node, ast.ImportFrom) and _is_own(node.module or ""):
        yield from (_origin(node.module or "", alias.name) for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imported(child)


def _origin(module: str, name: str) -> str:
    """The module that ``from module import name`` is about: a submodule, or where a package has the name from."""
    if _exists(f"{module}.{name}"):
        return f"{module}.{name}"
    if _path(module).name == "__init__.py":
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
                return _origin(node.module or "", name)
    return module


def _is_own(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES


def _exists(module: str) -> bool:
    return _path(module).is_file()


def _beside(module: str) -> list[Path]:
    """A module's templates; what editors leave beside it is none."""
    return [path for path in _path(module).parent.iterdir() if path.suffix in TEMPLATES]


def _path(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return package if (package := path / "__init__.py").is_file() else path.with_suffix(".py")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text(encoding="utf-8"))
