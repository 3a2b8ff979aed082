"""Where the needle lies, and what counts as found."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer

from pipeline.evaluation.needle import DEPTHS, NEW_TOKENS, PROMPTS, haystack


@pytest.mark.parametrize("form", PROMPTS)
def test_the_needle_lies_at_its_depth_in_a_prompt_of_the_length(tokenizer: Tokenizer, form: str) -> None:
    stack = tokenizer.encode("straw " * 1000).ids
    places = []
    for depth in DEPTHS:
        prompt, number = haystack(tokenizer, stack, form, depth, 600, random.Random(depth))
        text = tokenizer.decode(prompt)
        assert len(prompt) == 600 - NEW_TOKENS
        assert len(number) == 7
        assert text.count(number) == 1
        needle = next(line for line in text.splitlines() if number in line)
        assert text.startswith(PROMPTS[form][0])
        city = needle.removeprefix("The special magic ").split()[0]
        assert text.endswith(PROMPTS[form][1].format(city=city))
        straw = text.replace(needle, "|")
        places.append(straw.index("|") / len(straw))
    assert places == sorted(places)
    assert places[0] < 0.05
    assert places[-1] > 0.5
