"""Text generation for a list of prompts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.generation.context import beyond_context
from pipeline.generation.sampling import Sampling
from pipeline.generation.session import Session
from pipeline.models.language_model import LanguageModel

Stream = Callable[[int, list[int]], None]
"""Called with a prompt's place in the request and its next tokens, as they come."""


def generate(
    model: LanguageModel,
    prompts: list[list[int]],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    end_of_text: int | None = None,
    stream: Stream | None = None,
    batch_size: int = 64,
) -> list[list[int]]:
    """The tokens that follow each prompt: ``max_new_tokens``, or those before ``end_of_text`` if that comes first.

    Prompts may have any length >= 1; at most ``batch_size`` run at a time, those of like length together, which
    changes no result. ``temperature`` 0 is greedy. Where prompts and new tokens exceed the model's context length, one
    line on stderr says how many do. Raises :class:`UserError` for prompts that are empty or hold tokens outside the
    vocabulary, for sampling parameters out of range, and for weights that have diverged.
    """
    sampling = Sampling(temperature, top_k, top_p, seed)
    _check(model, prompts, max_new_tokens)
    _check_weights(model)
    warning = beyond_context([len(prompt) for prompt in prompts], max_new_tokens, model.config.context_length)
    if warning is not None:
        print(f"warning: {warning}", file=sys.stderr)
    request = Request(model, prompts, max_new_tokens, sampling, end_of_text, stream, [[] for _ in prompts])
    was_training = model.training
    model.eval()
    try:
        for rows in _batches(prompts, batch_size):
            request.run(rows)
    finally:
        model.train(was_training)
    return request.results


@dataclass(frozen=True)
class Request:
    """What :func:`generate` is asked for, and the results so far."""

    model: LanguageModel
    prompts: list[list[int]]
    max_new_tokens: int
    sampling: Sampling
    end_of_text: int | None
    stream: Stream | None
    results: list[list[int]]

    def run(self, rows: list[int]) -> None:
        """Generate for some of the prompts at once, or half of them at a time where memory is short."""
        if self._fits(rows):
            return
        # Not in the handler of the exception, which holds on to the memory of what failed.
        half = len(rows) // 2
        self.run(rows[:half])
        self.run(rows[half:])

    def _fits(self, rows: list[int]) -> bool:
        try:
            self._run(rows)
        except torch.OutOfMemoryError:
            if len(rows) == 1 or any(self.results[row] for row in rows):
                raise
            return False
        return True

    def _run(self, rows: list[int]) -> None:
        batch = [self.prompts[row] for row in rows]
        session = Session(self.model, len(rows), max(map(len, batch)), self.max_new_tokens, self.sampling)
        collector = Collector(rows, self.results, self.max_new_tokens, self.end_of_text, self.stream)
        session.prefill(batch, rows)
        session.check_finite()
        session.decode(collector)


class Collector:
    """Takes each step's tokens to the host, cuts rows at their end, and says when all have ended."""

    def __init__(
        self,
        rows: Sequence[int],
        results: list[list[int]],
        max_new_tokens: int,
        end_of_text: int | None,
        stream: Stream | None,
    ) -> None:
        self.rows, self.results, self.end_of_text, self.stream = rows, results, end_of_text, stream
        self.left = dict.fromkeys(rows, max_new_tokens)

    def __call__(self, tokens: Tensor) -> bool:
        for row, new in zip(self.rows, tokens.tolist(), strict=True):
            if self.left[row]:
                self._take(row, new[: self.left[row]])
        return any(self.left.values())

    def _take(self, row: int, new: list[int]) -> None:
        self.left[row] -= len(new)
        if self.end_of_text in new:
            new = new[: new.index(self.end_of_text)]
            self.left[row] = 0
        self.results[row] += new
        if self.stream is not None and new:
            self.stream(row, new)


def _batches(prompts: list[list[int]], size: int) -> Iterator[list[int]]:
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for begin in range(0, len(order), size):
        yield order[begin : begin + size]


def _check(model: LanguageModel, prompts: list[list[int]], max_new_tokens: int) -> None:
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens {max_new_tokens}: it is a whole number >= 1")
    vocabulary = model.config.vocabulary
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {row} is empty: give at least one token (the end of text starts a new document)")
        if not 0 <= min(prompt) <= max(prompt) < vocabulary:
            raise UserError(f"prompt {row} holds token {max(prompt)}: this model's tokens are 0 ... {vocabulary - 1}")


@torch.inference_mode()
def _check_weights(model: LanguageModel) -> None:
    """Raise :class:`UserError` for weights that are not finite: an argmax over nan is a token like any other."""
    names, weights = zip(*model.named_parameters(), strict=True)
    # The least and the greatest are nan where any number is, and take no memory; one wait for the device in all.
    extremes = torch.stack([torch.stack(torch.aminmax(weight)) for weight in weights])
    wrong = [name for name, finite in zip(names, extremes.isfinite().all(1).tolist(), strict=True) if not finite]
    if wrong:
        raise UserError(
            f"{len(wrong)} of {len(names)} weights hold numbers that are not finite ({wrong[0]} is the first): "
            "the weights have diverged"
        )
