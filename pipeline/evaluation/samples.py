"""What a model writes after held-out prompts, for a person to read."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from pipeline.generation import generate
from pipeline.results.records import Sample

if TYPE_CHECKING:
    from pipeline.checkpoints import Opened
    from pipeline.evaluation.scoring import Tokens

TEMPERATURE, TOP_P = 0.8, 0.95


def continuations(
    opened: Opened, documents: Iterable[Tokens], count: int, prompt_tokens: int, new_tokens: int, seed: int = 0
) -> list[Sample]:
    """Sampled continuations of the beginnings of the first ``count`` documents long enough."""
    long_enough = (document for document in documents if len(document) >= prompt_tokens)
    prompts = [[int(token) for token in document[:prompt_tokens]] for document in islice(long_enough, count)]
    if not prompts:
        return []
    generated = generate(
        opened.model,
        prompts,
        new_tokens,
        temperature=TEMPERATURE,
        top_p=TOP_P,
        seed=seed,
        end_of_text=opened.end_of_text,
    )
    decode = opened.tokenizer.decode
    return [Sample(decode(prompt), decode(new)) for prompt, new in zip(prompts, generated, strict=True)]
