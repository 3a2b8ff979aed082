"""A study's values as a whole: files that it includes, what the command line sets, and what its references stand for.

OmegaConf merges and resolves; what it would take from elsewhere (the environment, functions) is refused before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.study.conform import join, mapping
from pipeline.study.reading import MOST_BYTES, parsed, read_values
from pipeline.study.rules import require, shown, suggestion

INCLUDE = "include"
KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_][A-Za-z0-9_-]*)*")
REFERENCE = re.compile(r"\$\{(" + KEY.pattern + r")\}")
MOST_FILES = 16
LONGEST_CHAIN = 8
SCALARS = (str, int, float, bool, type(None))


def composed(
    path: Path, overrides: Sequence[str] = (), literal: Sequence[str] = (), without: Path | None = None
) -> dict[str, Any]:
    """The study's plain values: a file's keys over those it includes, ``KEY=VALUE`` overrides over both.

    Mappings are merged, lists replaced; references are resolved last. ``literal`` keys, which DVC reads too, hold none.
    ``without`` is a file that is not included, whoever says so. Raises :class:`UserError`.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config: Any = OmegaConf.merge(*_layers(path, without, [], []))
        for override in overrides:
            _set(config, override)
        with naming(path, overrides):
            unresolved = OmegaConf.to_container(config, resolve=False)
            for key in literal:
                _require_literal(unresolved, key)
            _Extents(unresolved).check()
        resolved: Any = OmegaConf.to_container(config, resolve=True)
        return resolved
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {' '.join(str(error).split())[:300]}") from None


@contextmanager
def naming(path: Path | str, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Put where a value comes from before an error's message."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{' '.join([str(path), *map(_option, overrides)])}: {error}") from None


def _option(override: str) -> str:
    return f"--set {override if override.isprintable() and len(override) <= 100 else shown(override)}"


def _layers(path: Path, without: Path | None, within: list[Path], read: list[Path]) -> list[dict[str, Any]]:
    """The values of a file and of those it includes, which come first; paths are relative to the file, not to links."""
    own = path.resolve()
    if own in within:
        raise UserError(f"{path}: {INCLUDE}: it leads back to this file; remove it from one of them")
    read.append(own)
    if len(read) > MOST_FILES:
        raise UserError(f"{path}: {INCLUDE}: more than {MOST_FILES} files in all; merge some")
    values = read_values(path)
    with naming(path):
        _require_plain(values, "")
        named = [own.parent / name for name in _included(values.pop(INCLUDE, []))]
        included = [file for file in named if without is None or file.resolve() != without.resolve()]
        for file in included:
            require(file.is_file(), INCLUDE, str(file), "there is no such file; its path is relative to this one")
    return [*(layer for file in included for layer in _layers(file, without, [*within, own], read)), values]


def _included(given: Any) -> list[str]:
    names = given if isinstance(given, list) else [given]
    for name in names:
        right = "it is a file, or a list of files, relative to this one"
        require(isinstance(name, str) and name != "" and "${" not in name, INCLUDE, name, right)
    return names


def _require_plain(value: Any, key: str) -> None:
    """Raise :class:`UserError` for what YAML or OmegaConf can say and a study cannot.

    Such as dates, bytes, sets, keys that are no text, and references to the environment.
    """
    if type(value) is dict:
        for name, item in mapping(value, key).items():
            _require_plain(item, join(key, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _require_plain(item, f"{key}[{number}]")
    else:
        right = "a value is text, a number, true, false or null, or a list or mapping of these; quotes make it text"
        require(type(value) in SCALARS, key, value, right)
        require(value != "???", key, value, "it marks a missing value; write the value")
        right = "a reference is to a key of the study, such as ${pretrain.tokens}; nothing else is read"
        literal = REFERENCE.sub("", value) if isinstance(value, str) and "${" in value else ""
        require("${" not in literal and "\\" not in literal, key, value, right)


def _set(config: Any, override: str) -> None:
    """Change one key as ``KEY=VALUE`` says, the value in YAML."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, text = override.partition("=")
    if not equals or not KEY.fullmatch(key):
        raise UserError(f"{_option(override)}: it is KEY=VALUE, such as pretrain.tokens=1000")
    value = parsed(_option(override), text)
    try:
        _require_plain(value, key)
        OmegaConf.update(config, key, value, force_add=True)
    except UserError as error:
        raise UserError(f"{_option(override)}: {error}") from None
    except (OmegaConfBaseException, ValueError, TypeError, IndexError, AssertionError) as error:
        raise UserError(f"{_option(override)}: {key} cannot be set ({' '.join(str(error).split())[:200]})") from None


def _require_literal(values: Any, key: str) -> None:
    """Raise :class:`UserError` for a reference in the key's value, which ``dvc repro`` would take as it stands."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    right = "dvc.yaml reads this key, and DVC does not resolve references; write the value"
    require("${" not in str(values), key, values, right)


class _Extents:
    """Characters that values stand for, once references are resolved: a few lines could stand for gigabytes."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.known: dict[str, int] = {}
        self.chain: list[str] = []

    def check(self) -> None:
        """Raise :class:`UserError` unless every reference names a key that is there, of a size, and not itself."""
        self.of(self.values, "")

    def of(self, value: Any, key: str) -> int:
        if isinstance(value, dict):
            return sum(self.of(item, join(key, name)) for name, item in value.items())
        if isinstance(value, list):
            return sum(self.of(item, f"{key}[{number}]") for number, item in enumerate(value))
        if not isinstance(value, str) or "${" not in value:
            return len(value) if isinstance(value, str) else 8
        extent = len(value) + sum(self.named(name, key, value) for name in REFERENCE.findall(value))
        require(extent <= MOST_BYTES, key, value, f"it stands for more than {MOST_BYTES:,} characters")
        return extent

    def named(self, name: str, key: str, value: str) -> int:
        """The extent of the key ``name``, to which the reference ``value`` of ``key`` leads."""
        if name not in self.known:
            require(name not in self.chain, key, value, "it leads back to itself; write the value in one place")
            right = f"it leads on through more than {LONGEST_CHAIN} references"
            require(len(self.chain) < LONGEST_CHAIN, key, value, right)
            self.chain.append(name)
            self.known[name] = self.of(self._at(name, key, value), name)
            self.chain.pop()
        return self.known[name]

    def _at(self, name: str, key: str, value: str) -> Any:
        reached: Any = self.values
        for part in name.split("."):
            if isinstance(reached, dict):
                hint = suggestion(part, reached) or "a reference names a key that is written down, not a default"
                require(part in reached, key, value, f"there is no {name}; {hint}")
                reached = reached[part]
            else:
                right = f"there is no {name}"
                require(isinstance(reached, list) and part.isdecimal() and int(part) < len(reached), key, value, right)
                reached = reached[int(part)]
        return reached
