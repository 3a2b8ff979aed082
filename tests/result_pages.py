"""What the tests of several pages in docs/results compute of the records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean
from typing import Any


def scores(evaluations: Iterable[dict[str, Any]]) -> list[str]:
    """Of tasks, a page's columns, means over everything: the loss, LAMBADA's two, SciQ's and PIQA's."""
    losses, values = [], defaultdict(list)
    for scored in evaluations:
        losses.append(scored["loss"])
        for score in scored["tasks"]:
            values[score["task"], score["metric"]].append(score["value"])
    told = [f"{mean(losses):.3f}", f"{mean(values['lambada_openai', 'gold_bits_per_byte']):.2f}"]
    told += [f"{mean(values[task, 'acc']):.3f}" for task in ("lambada_openai", "sciq")]
    return [*told, f"{mean(values['piqa', 'gold_bits_per_byte']):.2f}"]


def copies_by_offset(evaluations: Iterable[dict[str, Any]], block_length: int) -> list[str]:
    """Of copies of text, a page's columns: the first copy's loss, and the second's by offset, means over everything."""
    firsts, seconds = [], defaultdict(list)
    for scored in evaluations:
        for copy in scored["copies"]:
            if copy["kind"] == "text":
                firsts.append(copy["first"])
                seconds[copy["distance"] % block_length].append(copy["second"])
    return [f"{mean(firsts):.2f}", ", ".join(f"{mean(seconds[offset]):.2f}" for offset in range(block_length))]
