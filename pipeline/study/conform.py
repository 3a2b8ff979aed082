"""Plain values as the schema's dataclasses: nothing is converted but a whole number to a float."""

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


def conform(value: Any, hint: Any, key: str = "") -> Any:
    """The value as the type ``hint``, sections as its dataclasses, with their defaults.

    Raises :class:`UserError` for the first key that ``hint`` does not have, or whose value is of another type.
    """
    if get_origin(hint) is types.UnionType:
        if value is None and types.NoneType in get_args(hint):
            return None
        hint = _option(value, [option for option in get_args(hint) if option is not types.NoneType])
    if dataclasses.is_dataclass(hint):
        return _section(value, section_of(hint, value, key), key)
    if get_origin(hint) is dict:
        items = mapping(value, key).items()
        return {name: conform(item, get_args(hint)[1], join(key, name)) for name, item in items}
    if get_origin(hint) is list:
        require(isinstance(value, list), key, value, "it must be a list, such as [a, b]")
        return [conform(item, get_args(hint)[0], f"{key}[{number}]") for number, item in enumerate(value)]
    return _scalar(value, hint, key)


def _option(value: Any, options: list[Any]) -> Any:
    """The option of a union that has the value's type, or the first, whose error then names the key."""
    return next((option for option in options if (get_origin(option) or option) is type(value)), options[0])


def section_of(hint: Any, value: Any, key: str) -> Any:
    """The dataclass of a section: the one of its ``kind``, where that decides which keys there are."""
    if not issubclass(hint, Keys):
        return hint
    kinds, kind = hint.kinds(), mapping(value, key).get("kind", hint.kind)
    _scalar(kind, str, f"{key}.kind")
    choice(f"{key}.kind", kind, kinds)
    own, every = get_type_hints(kinds[kind]), {name for keys in kinds.values() for name in get_type_hints(keys)}
    part = key.rpartition(".")[2].replace("_", " ")
    right = f"a {kind} {part} has no such key (it has {', '.join(own)}); remove it"
    for name, item in value.items():
        require(name in own or name not in every, f"{key}.{name}", item, right)
    return kinds[kind]


def join(key: str, name: str) -> str:
    """The key ``name`` of the section ``key``, as messages spell it."""
    plain = name if name.isprintable() and name == name.strip() and 0 < len(name) <= 80 else shown(name)
    return f"{key}.{plain}" if key else plain


def mapping(value: Any, key: str) -> dict[str, Any]:
    """The value, if it is a mapping whose keys are text. Raises :class:`UserError`."""
    require(type(value) is dict, key, value, "it must be a mapping of keys, such as {name: value}")
    for name in value:
        right = "a key is text; put it in quotes" if name is not None else "a key is text, not null"
        require(isinstance(name, str), key or "the study", name, right)
    keys: dict[str, Any] = value
    return keys


def _section(value: Any, section: Any, key: str) -> Any:
    hints = get_type_hints(section)
    given = mapping(value, key)
    for name in given:
        if name not in hints:
            hint = suggestion(name, hints) or f"the keys here are {', '.join(hints)}"
            raise UserError(f"{join(key, name)}: unknown key; {hint}")
    for field in dataclasses.fields(section):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in given:
            raise UserError(f"{join(key, field.name)}: this key is missing; params.yaml's own shows what it means")
    return section(**{name: conform(item, hints[name], join(key, name)) for name, item in given.items()})


def _scalar(value: Any, hint: Any, key: str) -> Any:
    fits = type(value) is hint or (hint is float and type(value) is int)
    require(fits, key, value, EXAMPLES[hint])
    if isinstance(value, str):
        _check_text(value, key)
    elif not isinstance(value, bool):
        require(math.isfinite(value), key, value, "it must be a finite number")
        require(abs(value) <= LARGEST or type(value) is float, key, value, f"whole numbers go up to {LARGEST:,}")
    return hint(value)


def _check_text(value: str, key: str) -> None:
    require(len(value) <= LONGEST, key, value, f"text goes up to {LONGEST:,} characters")
    require(value.isprintable(), key, value, "it holds a character that cannot be seen; remove it")
    require("${" not in value, key, value, "only what is written ${KEY} is resolved; write the value")
