"""params.yaml into a :class:`Study`, or one line that says what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.base.paths import PARAMS
from pipeline.results.search import RECIPES
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
    try:
        return _load(path, overrides)
    except UserError as error:
        if _load_without_recipes(path, overrides, error) is None:
            raise
        raise UserError(f"{error}; `python -m pipeline tune` writes {RECIPES} anew") from None


def load_for_tuning(path: Path | str = PARAMS, overrides: Sequence[str] = ()) -> Study:
    """As :func:`load_study`, but without recipes that are lost or damaged, which the tuning then writes anew."""
    try:
        return _load(path, overrides)
    except UserError as error:
        study = _load_without_recipes(path, overrides, error)
        if study is None:
            raise
        print(f"{RECIPES} is left out and written anew ({error})", file=sys.stderr)
        return study


def _load_without_recipes(path: Path | str, overrides: Sequence[str], error: UserError) -> Study | None:
    """The study without what a tuning found, if that is what the error is about and there is one to find it anew."""
    if not RECIPES.exists() and str(RECIPES) not in str(error):
        return None
    with suppress(UserError):
        study = _load(path, overrides, without=RECIPES)
        return study if study.tune is not None else None
    return None


def _load(path: Path | str, overrides: Sequence[str], without: Path | None = None) -> Study:
    values = composed(Path(path), overrides, DVC_KEYS, without)
    with naming(path, overrides):
        study = conform(values, Study)
        assert isinstance(study, Study)
        check(study)
    return study


def check_dvc_keys(path: Path | str = PARAMS) -> None:
    """Raise :class:`UserError` for a key that ``dvc repro`` would miss in the file itself."""
    values = read_values(Path(path))
    for key in DVC_KEYS:
        section: Any = values
        for part in key.split("."):
            if not isinstance(section, dict) or part not in section:
                right = "dvc.yaml reads it in this file, so write even its default"
                raise UserError(f"{path}: {key}: this key is missing; {right}")
            section = section[part]
