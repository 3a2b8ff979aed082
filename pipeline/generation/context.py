"""Where generation leaves the lengths that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence


def beyond_context(lengths: Sequence[int], new_tokens: int, context_length: int) -> str | None:
    """What to warn of where prompts of ``lengths`` tokens with their new tokens exceed the context; ``None``: nothing.

    Rotary positions go on past the training length, so that nothing fails there: text only gets worse, often at once.
    """
    beyond = sum(length + new_tokens > context_length for length in lengths)
    if not beyond:
        return None
    alone = sum(length > context_length for length in lengths)
    return (
        f"the context length is {context_length} tokens; {beyond} of {len(lengths)} prompts exceed it with their "
        f"{new_tokens} new tokens, {alone} of them alone (the longest has {max(lengths)}): expect worse text there"
    )
