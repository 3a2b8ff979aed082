"""params.yaml as plain values, by the parser that DVC reads it with, so that both find the same in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.errors import UserError

if TYPE_CHECKING:
    from ruamel.yaml import YAML

MOST_BYTES = 2**16
MOST_VALUES = 2_000
DEEPEST = 16


def read_values(path: Path) -> dict[str, Any]:
    """The file's mapping. Raises :class:`UserError`."""
    values = parsed(str(path), _text(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: a study is a mapping of keys, not {type(values).__name__}; see params.yaml's own")
    return values


def parsed(source: str, text: str) -> Any:
    """The value of a YAML text. Raises :class:`UserError` that names its ``source``."""
    from ruamel.yaml import YAML

    try:
        return _parse(YAML(typ="safe"), text)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except RecursionError:
        raise UserError(f"{source}: {_too_deep()}") from None
    except Exception as error:
        # Beside its own errors, ruamel.yaml lets those of Python's constructors through: a malformed date, say.
        raise UserError(f"{source}: not valid YAML: {_explain(error)}") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{path}: larger than {MOST_BYTES // 1024} KiB; is it a study?")
        return content.decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the repository root") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid YAML: not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _parse(parser: YAML, text: str) -> Any:
    _check_brackets(text)
    node = parser.compose(text)
    if node is None:
        return None
    _check_extent(node, {}, 0)
    return parser.constructor.construct_document(node)


def _check_brackets(text: str) -> None:
    """The parser takes seconds for thousands of open brackets. Those in quotes count too, so be lenient."""
    depth = 0
    for bracket in re.findall(r"[][{}]", text):
        depth = max(depth + (1 if bracket in "[{" else -1), 0)
        if depth > 10 * DEEPEST:
            raise UserError(_too_deep())


def _check_extent(node: Any, known: dict[int, int], depth: int) -> int:
    """Values that a node stands for, aliases written out: some lines of aliases of aliases stand for billions."""
    if depth > DEEPEST:
        raise UserError(_too_deep())
    if id(node) not in known:
        children = node.value if isinstance(node.value, list) else []
        flat = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_check_extent(child, known, depth + 1) for child in flat)
    if known[id(node)] > MOST_VALUES:
        raise UserError(f"more than {MOST_VALUES:,} values; a study has some hundreds, so remove aliases or split it")
    return known[id(node)]


def _too_deep() -> str:
    return f"values nested more than {DEEPEST} deep; a study's keys are 5 deep at most"


def _explain(error: Exception) -> str:
    """The parser's message in one line, without its advice to programmers."""
    text = str(error).partition("To suppress this check")[0]
    line = re.sub(r"\s+", " ", text.replace('in "<unicode string>", ', "")).strip()
    return "".join(filter(str.isprintable, line))[:300]  # it quotes the line that is wrong, byte order mark and all
