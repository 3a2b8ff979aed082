"""Needle in a haystack (paper, tables 5 and 6): a 7-digit number hidden in held-out text, asked for at its end.

Two prompts: ``question`` asks for the number in its own words, as Gemini's evaluation does; ``verbatim`` begins the
answer with the words of the hidden sentence, so that copying suffices. Right is a generation of 20 tokens that holds
the number.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.base.errors import UserError
from pipeline.data.recall import CITIES
from pipeline.generation import generate
from pipeline.results.records import NeedleScore

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pipeline.checkpoints import Opened
    from pipeline.evaluation.scoring import Tokens

NEW_TOKENS = 20
DEPTHS = tuple(range(0, 101, 10))
NEEDLE = "The special magic {city} number is: {number}."
PROMPTS = {
    "question": (
        "<context>\n",
        "\n</context>\n\nWhat is the special magic {city} number? Answer from the context alone. The number is",
    ),
    "verbatim": (
        "",
        "\n\nQuestion: What is the special magic {city} number? Answer: The special magic {city} number is:",
    ),
}


def needle_scores(
    opened: Opened, documents: Iterable[Tokens], length: int, examples: int, seed: int = 0
) -> list[NeedleScore]:
    """Accuracy of each prompt at each depth, ``examples`` contexts of ``length`` tokens each."""
    stack = [int(token) for document in documents for token in document]
    scores = []
    for form in PROMPTS:
        for depth in DEPTHS:
            generator = random.Random(f"{seed} {depth}")
            drawn = [haystack(opened.tokenizer, stack, form, depth, length, generator) for _ in range(examples)]
            generated = generate(opened.model, [prompt for prompt, _ in drawn], NEW_TOKENS)
            texts = [opened.tokenizer.decode(new) for new in generated]
            right = sum(number in text for (_, number), text in zip(drawn, texts, strict=True))
            scores.append(NeedleScore(form, depth, right / examples, examples, length))
    return scores


def haystack(
    tokenizer: Tokenizer, stack: list[int], form: str, depth: int, length: int, generator: random.Random
) -> tuple[list[int], str]:
    """A prompt of ``length`` minus the new tokens, and the number in it, ``depth`` percent of the way through."""
    city, number = generator.choice(CITIES), str(generator.randrange(10**6, 10**7))
    parts = (PROMPTS[form][0], f"\n{NEEDLE}\n", PROMPTS[form][1])
    before, needle, after = (
        tokenizer.encode(part.format(city=city, number=number), add_special_tokens=False).ids for part in parts
    )
    room = length - NEW_TOKENS - len(before) - len(needle) - len(after)
    if not 0 < room <= len(stack):
        raise UserError(
            f"evaluate.needle: a context of {length} tokens needs {room} of text; it must be more than 0 and at most "
            f"the {len(stack)} tokens held out"
        )
    start = generator.randrange(len(stack) - room + 1)
    text, place = stack[start : start + room], round(room * depth / 100)
    return before + text[:place] + needle + text[place:] + after, number
