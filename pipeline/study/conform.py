"""Whether plain values fit the schema's types as they are: nothing is converted but a whole number to a float."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any, get_args, get_origin, get_type_hints

from pipeline.base.errors import UserError
from pipeline.models.parts import Keys
from pipeline.study.rules import choice, require, shown, suggestion

LARGEST = 2**63 - 1
LONGEST = 1024
EXAMPLES = {
    str: "it must be text; put it in quotes if it is meant as such",
    int: "it must be a whole number, such as 4, with no point, no exponent and no quotes",
    float: "it must be a number, such as 0.5, without quotes",
    bool: "it must be true or false",
}


def conform(value: Any, hint: Any, key: str = "") -> None:
    """Raise :class:`UserError` for the first key that the type ``hint`` does not have, or whose value is of another."""
    if get_origin(hint) is types.UnionType:
        if value is None:
            return
        hint = next(option for option in get_args(hint) if option is not types.NoneType)
    if dataclasses.is_dataclass(hint):
        _conform_section(value, section_of(hint, value, key), key)
    elif get_origin(hint) is dict:
        for name, item in _mapping(value, key).items():
            conform(item, get_args(hint)[1], _join(key, name))
    elif get_origin(hint) is list:
        require(isinstance(value, list), key, value, "it must be a list, such as [a, b]")
        for number, item in enumerate(value):
            conform(item, get_args(hint)[0], f"{key}[{number}]")
    else:
        _conform_scalar(value, hint, key)


def section_of(hint: Any, value: Any, key: str) -> Any:
    """The dataclass of a section: the one of its ``kind``, where that decides which keys there are."""
    if not issubclass(hint, Keys):
        return hint
    kinds, kind = hint.kinds(), _mapping(value, key).get("kind", hint.kind)
    _conform_scalar(kind, str, f"{key}.kind")
    choice(f"{key}.kind", kind, kinds)
    own, every = get_type_hints(kinds[kind]), {name for keys in kinds.values() for name in get_type_hints(keys)}
    part = key.rpartition(".")[2].replace("_", " ")
    right = f"a {kind} {part} has no such key (it has {', '.join(own)}); remove it"
    for name, item in value.items():
        require(name in own or name not in every, f"{key}.{name}", item, right)
    return kinds[kind]


def _join(key: str, name: str) -> str:
    plain = name if name.isprintable() and name == name.strip() and 0 < len(name) <= 80 else shown(name)
    return f"{key}.{plain}" if key else plain


def _conform_section(value: Any, section: Any, key: str) -> None:
    hints = get_type_hints(section)
    given = _mapping(value, key)
    for name in given:
        if name not in hints:
            hint = suggestion(name, hints) or f"the keys here are {', '.join(hints)}"
            raise UserError(f"{_join(key, name)}: unknown key; {hint}")
    for field in dataclasses.fields(section):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in given:
            raise UserError(f"{_join(key, field.name)}: this key is missing; params.yaml's own shows what it means")
    for name, item in given.items():
        conform(item, hints[name], _join(key, name))


def _mapping(value: Any, key: str) -> dict[str, Any]:
    require(type(value) is dict, key, value, "it must be a mapping of keys, such as {name: value}")
    for name in value:
        right = "a key is text; put it in quotes" if name is not None else "a key is text, not null"
        require(isinstance(name, str), key or "the study", name, right)
    mapping: dict[str, Any] = value
    return mapping


def _conform_scalar(value: Any, hint: Any, key: str) -> None:
    fits = type(value) is hint or (hint is float and type(value) is int)
    require(fits, key, value, EXAMPLES[hint])
    if isinstance(value, str):
        _check_text(value, key)
    elif not isinstance(value, bool):
        require(math.isfinite(value), key, value, "it must be a finite number")
        require(abs(value) <= LARGEST or type(value) is float, key, value, f"whole numbers go up to {LARGEST:,}")


def _check_text(value: str, key: str) -> None:
    require(len(value) <= LONGEST, key, value, f"text goes up to {LONGEST:,} characters")
    require(value.isprintable(), key, value, "it holds a character that cannot be seen; remove it")
    right = "references are not resolved here, since DVC does not resolve them; write the value itself"
    require("${" not in value and value != "???", key, value, right)
