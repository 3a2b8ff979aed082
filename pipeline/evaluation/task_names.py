"""Which zero-shot tasks there are, read from lm-eval's files: its own index of them takes 20 s to build."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from pipeline.base.errors import UserError
from pipeline.evaluation.local_tasks import TASKS

DEFINED = re.compile(rb"""^["']?(?:task|group|tag)["']?:[ \t]*["']?([\w.-]+)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)

NAME = re.compile(r"\w[^/\\]*")
"""Not a path: lm-eval would run the code that the files of a folder name."""


def check_tasks(names: Iterable[str]) -> None:
    """Raise :class:`UserError`, with the nearest name, for one that is no task of lm-eval or of this project."""
    unknown = {name for name in names if name not in TASKS}
    if unknown:
        unknown -= _defined(_files(likely_folders(unknown)))
    if unknown:
        unknown -= _mentioned(filter(NAME.fullmatch, unknown), _files([root()]))
    for name in sorted(unknown):
        close = difflib.get_close_matches(name, [*_defined(_files([root()])), *TASKS], n=1, cutoff=0.0)
        raise UserError(
            f"evaluate.tasks: {name!r} is no task of lm-eval or of this project; did you mean {close[0]!r}?"
        )


@cache
def root() -> Path:
    """The folder of lm-eval's tasks; lm-eval is not imported."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "tasks"


def likely_folders(names: Iterable[str]) -> list[Path]:
    """A task nearly always lies in a folder whose name begins its own."""
    stems = {re.split(r"[_-]", name)[0] for name in names}
    return sorted(folder for folder in root().iterdir() if folder.is_dir() and folder.name.split("_")[0] in stems)


def _files(folders: Iterable[Path]) -> Iterator[bytes]:
    """Contents of what may be YAML: included templates often have no ending."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.suffix in ("", ".yaml", ".yml") and path.is_file():
                yield path.read_bytes()


def _defined(files: Iterable[bytes]) -> set[str]:
    return {name.decode() for text in files for name in DEFINED.findall(text)}


def _mentioned(names: Iterable[str], files: Iterable[bytes]) -> set[str]:
    """Names that some file holds as a word, such as a tag in a list or a group's member."""
    patterns = {name: re.compile(rb"(?<![\w-])" + re.escape(name.encode()) + rb"(?![\w-])") for name in names}
    return {name for text in files for name, pattern in patterns.items() if pattern.search(text)}
