"""params.yaml into a :class:`Study`, or one line that says what is wrong with it."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.paths import PARAMS
from pipeline.study.checks import check
from pipeline.study.schema import Study


def load_study(path: Path | str = PARAMS) -> Study:
    """Read, type and check a study. Raises :class:`UserError`."""
    study = _typed(_read(Path(path)), Path(path))
    check(study, Path(path))
    return study


def _read(path: Path) -> Any:
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        loaded = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the repository root") from None
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not valid YAML: {_one_line(error)}") from None
    if not OmegaConf.is_dict(loaded):
        raise UserError(f"{path}: a study is a mapping of keys, not {type(loaded).__name__}")
    return loaded


def _typed(loaded: Any, path: Path) -> Study:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge(OmegaConf.structured(Study), loaded)
        study = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {_explain(error)}") from None
    assert isinstance(study, Study)
    return study


def _explain(error: Any) -> str:
    from omegaconf.errors import ConfigKeyError, MissingMandatoryValue

    key = error.full_key or error.key or "?"
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: this key is missing"
    if isinstance(error, ConfigKeyError):
        return f"{key}: unknown key{_suggestion(error)}"
    return f"{key}: {_one_line(str(error.msg).splitlines()[0] if error.msg else error)}"


def _suggestion(error: Any) -> str:
    fields = getattr(error.object_type, "__dataclass_fields__", {})
    close = difflib.get_close_matches(str(error.key), fields, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; the keys here are {', '.join(fields)}" if fields else ""


def _one_line(error: Any) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()
