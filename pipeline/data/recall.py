"""Associative recall as text: lines of a city and a number, a blank line, then lines of the same cities again.

    Oslo 42
    Lima 17

    Lima 17
    Oslo 42

Whoever read the first lines knows the number behind a city of the later ones. The form is that of multi-query
associative recall (Arora et al., 2023, "Zoology"); a line is three tokens for a tokenizer that has its words, so that
the lines lie in blocks of 2, 4 or 8 tokens at every offset. With ``total`` lines a text asks for pairs again and again,
and all texts are of one length.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

NAMES = (
    "Amsterdam Bogota Cairo Dublin Hanoi Helsinki Istanbul Jakarta Lagos Lima Lisbon Madrid Manila Nairobi Oslo Paris "
    "Prague Quito Riga Rome Santiago Seoul Sofia Stockholm Sydney Tallinn Tokyo Toronto Vienna Warsaw"
)
CITIES = tuple(NAMES.split())
NUMBERS = range(10, 100)

Pair = tuple[str, int]


def drawn(pairs: int, generator: random.Random, symbols: int | None = None) -> tuple[list[Pair], list[Pair]]:
    """So many cities, each with a number that no other has; and the same in the order in which they are asked for.

    Only the first ``symbols`` cities and numbers are drawn from, if so many are given.
    """
    cities, numbers = CITIES[:symbols], NUMBERS[:symbols]
    listed = list(zip(generator.sample(cities, pairs), generator.sample(numbers, pairs), strict=True))
    return listed, generator.sample(listed, pairs)


def lines(pairs: Sequence[Pair]) -> str:
    """A line per pair."""
    return "".join(f"{city} {number}\n" for city, number in pairs)


def recall_texts(
    pairs: Sequence[int], seed: int, total: int | None = None, symbols: int | None = None
) -> Iterator[str]:
    """Texts without end; how many pairs one lists is drawn from ``pairs``, and its questions fill ``total`` lines."""
    generator = random.Random(f"recall {seed}")
    while True:
        listed, asked = drawn(generator.choice(pairs), generator, symbols)
        if total is not None:
            asked = generator.choices(listed, k=total - len(listed))
        yield f"{lines(listed)}\n{lines(asked)}"
