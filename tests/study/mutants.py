"""Studies that a tired or malicious hand might write: mutants of the well-formed ones."""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
BASES = [ROOT / "params.yaml", ROOT / "tests/params.yaml", *sorted((ROOT / "studies").glob("*.yaml"))]

NAMES = ["s", "S", "m", "base", "Base", "x_1", "19m", "0", "1e3", "on", "null", "true", "a.b", "a-b", "a/b", "../up",
         "a b", " s", "", ".", "..", ".hidden", "~", "/etc", "C:", "con", "NUL", "com1", "aux", "-x", "_x", "é",
         "e\u0301", "\u017f", "日本", "a\u200fb", "\u202ea", "a\u00a0b", "a\0b", "a\nb", "a\tb", "\ud800", "x" * 64,
         "x" * 65, "x" * 300, "x" * 5000, "${name}", "$(touch x)", "`touch x`", ";ls", "*", "a@b", "a:b", "vanilla-s-0",
         "__class__", "_target_", "???", "widht", "sizs", "grdi", "block_lenght"]  # fmt: skip
TRAPS = ["1e3", "1E3", "1.0e-3", ".5", "5.", "+3", "-0", "-0.0", "-1", "0", "1", "2", "4", "8", "512", "on", "off",
         "yes", "no", "y", "True", "TRUE", "true", "False", "~", "null", "Null", "''", '""', "'4'", "0o10", "010",
         "08", "0x1F", "0b11", "1_000", "1:30", "12:30:45", "2020-01-01", "2020-13-45",
         "2001-12-14t21:59:43.10-05:00", ".inf", "-.inf", ".nan", "nan", "inf", "9" * 30, "9" * 5000, "1e400",
         "1e-400", "2**10", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1000000000",
         "1000000000000", "${oc.env:HOME}", "'${oc.env:HOME}'", "${name}", "'${item.size}'", "'${pretrain.tokens}'",
         "'???'", "*x", "&x 3", "&x [*x]", "!!int '3'", "!!int 'x'", "!!float 3", "!!str 3", "!!bool 'x'",
         "!!python/name:os.system", "!!python/object/apply:os.system ['touch x']", "!!binary aGk=", "!!set {a, b}",
         "!!omap [a: 1]", "!!timestamp x", "!x 3", "{<<: {a: 1}}", "{<<: 3}", "=", "|", "'a", "[1, 2", "{", "a: b",
         "- 1", "? a", "%", "@", "`", "'\t'", "\t3", '"\\0"', '"\\ud800"', '"\\u202e"', '"\\x1b[31m"', "é", "e\u0301",
         "日本", "\u200f", "[[]]", "[[1]]", "[]", "{}", "[~]", "[1, 1]", "[2, 4]", "[s]", "[s, s]", "['s', 'S']",
         "[0, 1]", "[0.9, 0.9]", "{layers: 4, width: 64}", "{kind: cls}", "{kind: projection, width: 8}",
         "{kind: lookup, width: 8}", "{kind: summation, prefix_length: 2}", "'../x'", "/etc/passwd", "a.b", "a-b",
         "con", "x" * 65, "[" * 50 + "]" * 50, "[" * 5000,
         "&a [&b [*a, *b], *b]"]  # fmt: skip
CHARACTERS = [":", "#", "-", "\t", "\n", " ", '"', "'", "[", "]", "{", "}", ",", "&", "*", "!", "|", ">", "%",
              "\ufeff", "\u2028", "\x85", "\0", "\r", "\u200f", "é", "9", ".", "\ud800"]  # fmt: skip

FRAMES = [
    ("\ufeff", ""),
    ("\t\n", ""),
    ("---\n", ""),
    ("%YAML 1.1\n---\n", ""),
    ("%YAML 1.2\n---\n", ""),
    ("%YAML 3.0\n---\n", ""),
    ("%TAG ! x\n---\n", ""),
    ("", "\n...\n"),
    ("", "\n---\na: 1\n"),
    ("", "\n<<: {name: other}\n"),
    ("", "\nname: other\n"),
    ("", "\0"),
    ("", "# " + "x" * 200_000),
]

Mutant = tuple[str, bytes]
"""What was done to which study, and the file."""


def mutants(bases: list[Path] = BASES) -> st.SearchStrategy[Mutant]:
    base = st.sampled_from(bases)
    return st.one_of(_edited_values(base), _edited_values(base), _edited_text(base))


def _names() -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(NAMES), st.text(max_size=12))


def _values() -> st.SearchStrategy[Any]:
    small = st.one_of(st.integers(1, 16), st.integers(0, 10).map(lambda power: 2**power), st.floats(0, 1))
    scalar = st.one_of(small, st.integers(), st.floats(), st.booleans(), st.none(), _names())
    return st.one_of(scalar, st.lists(scalar, max_size=3), st.dictionaries(_names(), scalar, max_size=2))


def _alike(value: Any) -> st.SearchStrategy[Any]:
    """Mostly values of the same type, so that many mutants are well-formed."""
    if isinstance(value, list):
        return st.one_of(st.permutations(value), st.just(value[:1]), _values())
    kinds = {bool: st.booleans(), int: st.integers(0, 64), float: st.floats(0, 1)}
    return st.one_of(*[kinds[type(value)]] * 3, _values()) if type(value) in kinds else _values()


@st.composite
def _edited_values(draw: st.DrawFn, base: st.SearchStrategy[Path]) -> Mutant:
    """One to three keys or values changed, and the whole written anew: JSON is YAML."""
    path = draw(base)
    values = copy.deepcopy(_parsed(path))
    done = [draw(st.sampled_from(EDITS))(draw, values) for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3])))]
    return f"{path.name}: {', '.join(done)}", json.dumps(values, indent=1).encode()


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _parsed(path: Path) -> Any:
    return YAML(typ="safe").load(_text(path))


def _places(values: Any) -> list[tuple[Any, Any]]:
    """(container, key or number) of every value."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [place for key, value in items for place in ((values, key), *_places(value))]


def _replace(draw: st.DrawFn, values: Any) -> str:
    container, key = draw(st.sampled_from(_places(values)))
    container[key] = draw(_alike(container[key]))
    return f"{key} replaced"


def _scale(draw: st.DrawFn, values: Any) -> str:
    numbers = [place for place in _places(values) if type(place[0][place[1]]) in (int, float)]
    container, key = draw(st.sampled_from(numbers))
    container[key] *= draw(st.sampled_from([0, -1, 2, 3, 10, 1000, 10**9, 10**12, 10**30]))
    return f"{key} scaled"


def _remove(draw: st.DrawFn, values: Any) -> str:
    container, key = draw(st.sampled_from(_places(values)))
    del container[key]
    return f"{key} removed"


def _rename(draw: st.DrawFn, values: Any) -> str:
    container, key = draw(st.sampled_from([place for place in _places(values) if isinstance(place[0], dict)]))
    container[draw(_names())] = container.pop(key)
    return f"{key} renamed"


def _rename_everywhere(draw: st.DrawFn, values: Any) -> str:
    """A size or a variant, and wherever the grid names it."""
    sections = [name for name in ("sizes", "variants") if values.get(name) and isinstance(values[name], dict)]
    section = draw(st.sampled_from(sections or ["name"]))
    if section == "name":
        values["name"] = draw(_names())
        return "name replaced"
    old, new = draw(st.sampled_from(list(values[section]))), draw(_names())
    values[section] = {new if key == old else key: value for key, value in values[section].items()}
    for container, key in _places(values.get("grid")):
        if container[key] == old:
            container[key] = new
    return f"{section}.{old} renamed everywhere"


def _lengthen(draw: st.DrawFn, values: Any) -> str:
    lists = [place for place in _places(values) if isinstance(place[0][place[1]], list)]
    container, key = draw(st.sampled_from(lists or _places(values)))
    old = container[key] if isinstance(container[key], list) else [container[key]]
    container[key] = draw(st.sampled_from([[], old * 2, [*old, draw(_values())], list(range(1, 2000)), [old], old[:1]]))
    return f"{key} lengthened or emptied"


def _move(draw: st.DrawFn, values: Any) -> str:
    places = _places(values)
    (from_, old), (to, new) = draw(st.sampled_from(places)), draw(st.sampled_from(places))
    to[new] = copy.deepcopy(from_[old])
    return f"{old} copied to {new}"


EDITS = [_replace, _replace, _scale, _remove, _rename, _rename_everywhere, _lengthen, _move]


@st.composite
def _edited_text(draw: st.DrawFn, base: st.SearchStrategy[Path]) -> Mutant:
    """The text as a person edits it: YAML's own traps."""
    path = draw(base)
    text = re.sub(r"\s+#.*", "", _text(path))
    name, edit = draw(st.sampled_from(list(TEXT_EDITS.items())))
    text = edit(draw, text)
    encoding = draw(st.sampled_from(["utf-8"] * 12 + ["utf-8-sig", "utf-16", "latin-1"]))
    content = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    return f"{path.name}: {name} ({encoding})", content


def _trap(draw: st.DrawFn, text: str) -> str:
    found = draw(st.sampled_from(list(re.finditer(r"[\w.+<>|-]+(?=[\s,\]}])", text))))
    return text[: found.start()] + draw(st.sampled_from(TRAPS)) + text[found.end() :]


def _key(draw: st.DrawFn, text: str) -> str:
    found = draw(st.sampled_from(list(re.finditer(r"\w+(?=:)", text))))
    return text[: found.start()] + draw(st.sampled_from(NAMES + TRAPS)) + text[found.end() :]


def _character(draw: st.DrawFn, text: str) -> str:
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.sampled_from(CHARACTERS)) + text[at:]


def _line(draw: st.DrawFn, text: str) -> str:
    lines = text.splitlines(keepends=True)
    at = draw(st.integers(0, len(lines) - 1))
    line = lines[at]
    prefixed = [prefix + line for prefix in ("  ", "\t", "---\n", "...\n", "? ", "- ")]
    others = [line * 2, "", line.lstrip(), line.replace(": ", ":"), line.replace(":", ": &x", 1)]
    changed = draw(st.sampled_from(prefixed + others))
    return "".join([*lines[:at], changed, *lines[at + 1 :]])


def _cut(draw: st.DrawFn, text: str) -> str:
    return text[: draw(st.integers(0, len(text)))]


def _frame(draw: st.DrawFn, text: str) -> str:
    before, after = draw(st.sampled_from(FRAMES))
    return before + text + after


def _bomb(draw: st.DrawFn, text: str) -> str:
    levels, merge = draw(st.integers(5, 40)), draw(st.booleans())
    row = "x{0}: &x{0} {{<<: [*x{1}, *x{1}]}}\n" if merge else "x{0}: &x{0} [*x{1}, *x{1}, *x{1}]\n"
    first = "x0: &x0 {a: 1}\n" if merge else "x0: &x0 [1]\n"
    return text + "\n" + first + "".join(row.format(level, level - 1) for level in range(1, levels))


TEXT_EDITS = {
    "trap": _trap,
    "another trap": _trap,
    "key": _key,
    "character": _character,
    "line": _line,
    "cut": _cut,
    "line ends": lambda draw, text: text.replace("\n", draw(st.sampled_from(["\r\n", "\r", "\u2028", "\x85"]))),
    "frame": _frame,
    "bomb": _bomb,
}
