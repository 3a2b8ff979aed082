"""params.yaml into a :class:`Study`, or one line that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.base.paths import PARAMS
from pipeline.study.checks import check
from pipeline.study.compose import composed, naming
from pipeline.study.conform import conform
from pipeline.study.reading import read_values
from pipeline.study.schema import Study

DVC_KEYS = (
    "grid.vanilla.size",
    "grid.block.size",
    "grid.block.block_length",
    "grid.block.variant",
    "grid.uptrained.source",
    "grid.uptrained.block_length",
    "grid.uptrained.variant",
    "grid.seed",
    "pretrained",
    "pretrain.budgets",
)
"""Keys that dvc.yaml reads itself, and so must find in params.yaml, even where their values are the defaults."""


def load_study(path: Path | str = PARAMS, overrides: Sequence[str] = ()) -> Study:
    """Read, type and check a study, with ``KEY=VALUE`` overrides. Raises :class:`UserError`."""
    values = composed(Path(path), overrides, literal=DVC_KEYS)
    with naming(path, overrides):
        study = conform(values, Study)
        assert isinstance(study, Study)
        check(study)
    return study


def check_dvc_keys(path: Path | str = PARAMS) -> None:
    """Raise :class:`UserError` for a key that ``dvc repro`` would miss in the file itself."""
    values = read_values(Path(path))
    for key in DVC_KEYS:
        found: Any = values
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                right = "dvc.yaml reads it in this file, so write even its default"
                raise UserError(f"{path}: {key}: this key is missing; {right}")
            found = found[part]
