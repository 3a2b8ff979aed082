"""params.yaml into a :class:`Study`, or one line that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.base.paths import PARAMS
from pipeline.study.checks import check
from pipeline.study.conform import conform, section_of
from pipeline.study.reading import read_values
from pipeline.study.schema import KINDS, Study, Variant

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
)
"""Keys that dvc.yaml reads itself, and so must find even where their values are the defaults."""


def load_study(path: Path | str = PARAMS) -> Study:
    """Read, type and check a study. Raises :class:`UserError`."""
    path = Path(path)
    values = read_values(path)
    try:
        conform(values, Study)
        study = _build(values)
        check(study)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return study


def check_dvc_keys(path: Path | str = PARAMS) -> None:
    """Raise :class:`UserError` for a key that ``dvc repro`` would miss in the study."""
    values = read_values(Path(path))
    for key in DVC_KEYS:
        found: Any = values
        for part in key.split("."):
            if part not in found:
                raise UserError(f"{path}: {key}: this key is missing; dvc.yaml reads it, so write even its default")
            found = found[part]


def _build(values: dict[str, Any]) -> Study:
    """The values over the schema's defaults."""
    from omegaconf import OmegaConf

    def over(defaults: type, given: dict[str, Any]) -> Any:
        return OmegaConf.merge(OmegaConf.structured(defaults), given)

    def variant(given: dict[str, Any]) -> Any:
        """OmegaConf merges into a default what has its keys; where a kind decides the keys, it is set instead."""
        made = over(Variant, {key: value for key, value in given.items() if key not in KINDS})
        for part, keys in KINDS.items():
            if part in given:
                made[part] = over(section_of(keys, given[part], part), given[part])
        return made

    made = over(Study, values | {"variants": {}})
    for name, given in values["variants"].items():
        made.variants[name] = variant(given)
    study = OmegaConf.to_object(made)
    assert isinstance(study, Study)
    return study
