"""What the tests of several pages in docs/results compute of the records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean
from typing import Any


def copies_by_offset(evaluations: Iterable[dict[str, Any]], block_length: int) -> list[str]:
    """Of copies of text, a page's columns: the first copy's loss, and the second's by offset, means over everything."""
    firsts, seconds = [], defaultdict(list)
    for scored in evaluations:
        for copy in scored["copies"]:
            if copy["kind"] == "text":
                firsts.append(copy["first"])
                seconds[copy["distance"] % block_length].append(copy["second"])
    return [f"{mean(firsts):.2f}", ", ".join(f"{mean(seconds[offset]):.2f}" for offset in range(block_length))]
