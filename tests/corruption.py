"""What happens to files: cut off in a copy, bits flipped by a disk, written by another program, edited by hand."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

VALUES: list[Any] = [None, True, -1, 0, 2.5, 10**12, 10**30, 1e308, float("nan"), "", "x", [], [1], {}, {"a": 1}]
"""What a value of a JSON file may be by mistake."""

LINES = [
    b"",
    b" \t ",
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf" + b'{"text": "after a byte order mark"}',
    b"null",
    b"3",
    b"NaN",
    b"[]",
    b'["text"]',
    b'"text"',
    b"{}",
    b"{",
    b"}",
    b'{"txt": "another field"}',
    b'{"text": null}',
    b'{"text": 3}',
    b'{"text": ["a"]}',
    b'{"text": {"a": 1}}',
    b'{"text": true}',
    b'{"text": "\\ud800"}',
    b'{"text": "\\u0000"}',
    b'{"text": "\x00"}',
    b'{"text": "cut',
    b'{"text": "a"} {"text": "b"}',
    b'{"text": "a", "text": "b"}',
    b'{"text": "a", "other": ' + b"9" * 5000 + b"}",
    b'{"text": "a", "other": 1e999}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"text": "carriage return"}\r',
    b'{"text": "\\u2028 \xe2\x80\xa8 \x85"}',
    b"<html>503 Service Unavailable</html>",
    b"PK\x03\x04",
    b"\x1f\x8b\x08\x00",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1",
]
"""Lines that do not belong in a file of JSON lines, or barely do."""


def damaged(content: bytes, seed: str, flips: int = 12) -> Iterator[tuple[str, bytes]]:
    """(what was done, the file's bytes), the same on every run."""
    draw = random.Random(seed)
    size = len(content)
    for kept in sorted(
        {0, 1, 7, 8, 9, size // 4, size // 2, size * 3 // 4, size - 9, size - 8, size - 1} & {*range(size)}
    ):
        yield f"cut to {kept} of {size} bytes", content[:kept]
    for place in sorted(draw.sample(range(size), min(flips, size))):
        flipped = bytes([content[place] ^ (1 << draw.randrange(8))])
        yield f"bit flipped at {place}", content[:place] + flipped + content[place + 1 :]
    for fill in (b"\x00", b"\xff"):
        start, length = draw.randrange(size), draw.randrange(1, 64)
        yield f"{length} bytes at {start} are {fill!r}", content[:start] + fill * length + content[start + length :]
    yield "another magic", b"\x7fELF\x02\x01\x01\x00" + content[8:]
    yield "another program's", draw.randbytes(200)
    yield "bytes behind its end", content + b"\x00garbage"
    yield "twice", content * 2
    yield "one byte short at its start", content[1:]
    yield "line ends changed", content.replace(b"\n", b"\r\n")
    yield "a byte order mark", b"\xef\xbb\xbf" + content


def edited(content: bytes, depth: int = 3) -> Iterator[tuple[str, bytes]]:
    """A JSON file with a key left out, or a value of another kind, down to ``depth`` keys from the top."""
    for keys in list(_places(json.loads(content), depth)):
        name = ".".join(map(str, keys))
        yield f"without {name}", _with(content, keys)
        for value in VALUES:
            yield f"{name}: {value!r}", _with(content, keys, value)


def _places(values: Any, depth: int) -> Iterator[tuple[Any, ...]]:
    items = values.items() if isinstance(values, dict) else enumerate(values[:1]) if isinstance(values, list) else ()
    for key, value in items:
        yield (key,)
        if depth > 1:
            yield from ((key, *rest) for rest in _places(value, depth - 1))


def _with(content: bytes, keys: tuple[Any, ...], *value: Any) -> bytes:
    values = json.loads(content)
    place = values
    for key in keys[:-1]:
        place = place[key]
    if value:
        place[keys[-1]] = value[0]
    else:
        del place[keys[-1]]
    return json.dumps(values).encode()
