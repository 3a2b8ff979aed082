"""What the parts of an architecture have in common: checks, their form as JSON, and their keys in a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar, get_type_hints

from pipeline.base.typed_json import build

Kind = TypeVar("Kind")

LARGEST = {"layers": 1000, "vocabulary": 2**31, "context_length": 2**31, "block_length": 2**31, "window": 2**63}
"""Far beyond any model, and small enough to build one without weights in a second; other numbers: a million."""


class Part:
    """A frozen dataclass that describes a part of a model, or a whole one, and its form as JSON.

    The form never changes for what exists, since fingerprints hash it. The one rule: a part is written with the keys of
    its :attr:`FORM`, a key that its kind lacks as the value given there; further fields follow only where they differ
    from their defaults. So a new kind, or a new field with a default, leaves every older form as it was.
    """

    FORM: ClassVar[Mapping[str, Any]] = {}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready nested dictionaries."""
        written = {name: getattr(self, name, lacking) for name, lacking in self.FORM.items()}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.name not in written and value != field.default:
                written[field.name] = value
        return {name: value.to_dict() if isinstance(value, Part) else value for name, value in written.items()}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Inverse of :meth:`to_dict`. Raises ``ValueError``, ``TypeError`` or ``KeyError`` for another form."""
        if type(values) is not dict:
            raise TypeError(f"{ascii(values)[:60]} is no mapping of keys")
        kind = cls.kind_of(values)
        hints, own = get_type_hints(kind), {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        part = kind(**{name: _read(hints[name], value) for name, value in values.items() if name in own})
        written = part.to_dict()
        for name, value in values.items():
            if name not in own and (name not in written or written[name] != value):
                raise ValueError(f"{ascii(name)[:60]}: {ascii(value)[:60]} does not go with {ascii(written)[:200]}")
        return part

    @classmethod
    def kind_of(cls, values: dict[str, Any]) -> type[Self]:
        """The class that the values are of."""
        return cls


def _read(hint: Any, value: Any) -> Any:
    return hint.from_dict(value) if isinstance(hint, type) and issubclass(hint, Part) else build(hint, value)


@dataclass(frozen=True)
class Keys:
    """The keys that a study gives a part, whose ``kind`` decides which keys there are."""

    kind: str

    @classmethod
    def kinds(cls) -> Mapping[str, type[Keys]]:
        """The keys of every kind of this part, by the kind's name."""
        raise NotImplementedError


def kind_named(kinds: Mapping[str, Kind], part: str, name: Any) -> Kind:
    """The one of ``kinds`` that ``name`` names. Raises ``ValueError`` that names them all."""
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"{part} {ascii(name)[:60]} is unknown; it is one of {', '.join(kinds)}")
    return kinds[name]


def check_counts(part: object, *names: str, least: int = 1) -> None:
    """Raise ``ValueError`` unless these are whole numbers from ``least`` to their largest."""
    for name in names:
        value, most = getattr(part, name), LARGEST.get(name, 1_000_000)
        if type(value) is not int or value < least:
            raise ValueError(f"{name} {value!r} must be a whole number of at least {least}")
        if value > most:
            raise ValueError(f"{name} {value} must be at most {most:,}")
