"""Trainings whose place others have taken: kept aside, whole or half-trained, and brought back when their own keys are.

A checkpoint folder moves by one rename, so that a kill at any moment leaves it in one of its two places.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.base.files import is_file, read_object
from pipeline.results.curve import last_row
from pipeline.study.schema import Json, Pretrain

SHOWN = 3
RESULT = "result.json"
"""Written last into a checkpoint folder: with it, training is complete."""


@dataclass(frozen=True)
class Training:
    """A checkpoint folder. ``record`` is its ``config.json``; ``step`` the last one of its curve."""

    folder: Path
    record: Json
    step: int
    complete: bool

    @property
    def cell(self) -> str:
        """The cell that it is, or was, the training of."""
        return self.folder.parent.name if self.folder.parent.parent == paths.SUPERSEDED else self.folder.name

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @property
    def progress(self) -> str:
        """How far it came, in words."""
        return f"{'complete, ' if self.complete else 'stopped at '}{self.step:,} steps"


def training_in(folder: Path) -> Training | None:
    """The training of a checkpoint folder; ``None`` where there is none."""
    if not folder.is_dir():
        return None
    try:
        record = read_object(folder / "config.json")
    except UserError:
        record = {}
    return Training(folder, record, _step(last_row(folder / "curve.csv")), is_file(folder / RESULT))


def mark(record: Json) -> str:
    """What two trainings share whose keys, tokens and code are the same: the name of a kept one's folder."""
    code = hashlib.sha256(json.dumps(record.get("code"), sort_keys=True).encode()).hexdigest()
    return f"{record.get('fingerprint')}-{code[:8]}"


def set_aside(cell: str) -> Path | None:
    """Move the cell's checkpoint folder to those kept; ``None``, and it is removed, where nothing was trained in it."""
    folder = paths.checkpoint(cell)
    training = training_in(folder)
    if training is None:
        return None
    if not training.step and not _holds_weights(folder):
        shutil.rmtree(folder)
        return None
    aside = paths.SUPERSEDED / cell / mark(training.record)
    while aside.exists():
        aside = aside.with_name(aside.name + "+")
    aside.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(aside)
    return aside


def bring_back(cell: str, wanted: str) -> Training | None:
    """Move the kept training of that mark, the one that came furthest, to the cell's place, which must be free."""
    best = _furthest(cell, wanted)
    if best is None:
        return None
    folder = paths.checkpoint(cell)
    folder.parent.mkdir(parents=True, exist_ok=True)
    best.folder.rename(folder)
    return dataclasses.replace(best, folder=folder)


def kept_like(cell: str, record: Json) -> Training | None:
    """What :func:`bring_back` would bring back for a training of that record."""
    return _furthest(cell, mark(record))


def _furthest(cell: str, wanted: str) -> Training | None:
    same = [training for training in kept(cell) if training.folder.name.rstrip("+") == wanted]
    return max(same, key=lambda training: (training.complete, training.step), default=None)


def kept(cell: str = "*") -> list[Training]:
    """Every training that is kept aside, of that cell or of all."""
    trainings = (training_in(folder) for folder in sorted(paths.SUPERSEDED.glob(f"{cell}/*")))
    return [training for training in trainings if training is not None]


def remove(training: Training) -> None:
    """Delete a kept training for good."""
    shutil.rmtree(training.folder)
    if not any(training.folder.parent.iterdir()):
        training.folder.parent.rmdir()


def changes(before: Json, now: Json) -> str:
    """What differs between the records of two trainings of a cell, in words: keys with their values, then modules."""
    different = [*_different_keys(before, now), *_different_code(before.get("code"), now.get("code"))]
    more = f" and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
    return ", ".join(different[:SHOWN]) + more


def _different_keys(before: Json, now: Json) -> Iterator[str]:
    old, new = _keys(before), _keys(now)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{key} ({_shown(old.get(key))} -> {_shown(new.get(key))})"


def _keys(record: Json) -> dict[str, Any]:
    """Flat names of all that a record says of a training's keys; an absent key of ``pretrain`` has its default."""
    defaults = dataclasses.asdict(Pretrain())
    keys = {"model": record.get("model"), "pretrain": defaults | record.get("pretrain", {})}
    keys |= {"seed": record.get("cell", {}).get("seed"), "tokens": record.get("corpus"), "start": record.get("start")}
    return dict(_flat("", keys))


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, item)
    elif value is not None:
        yield prefix, value


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


def _different_code(before: Any, now: Any) -> list[str]:
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else ["the code"]
    return [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]


def _holds_weights(folder: Path) -> bool:
    return is_file(folder / "model.safetensors") or any(folder.glob("resume/*"))


def _step(row: dict[str, str]) -> int:
    """The step of a curve's row; 0 where there is none."""
    step = row.get("step") or ""
    return int(step) if step.isdecimal() else 0
