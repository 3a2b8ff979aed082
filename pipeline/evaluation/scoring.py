"""Log-probabilities of given tokens under any language model of the project.

Shapes: B batch, T tokens, R rows that are scored, D width, V vocabulary, L block length (1 for a vanilla model).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.models import LanguageModel

Tokens = Sequence[int] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class Request:
    """Score ``tokens[first:]``, each given all tokens before it. ``first`` is at least 1."""

    tokens: Tokens
    first: int = 1

    def __post_init__(self) -> None:
        assert 1 <= self.first < len(self.tokens), (self.first, len(self.tokens))


@dataclass(frozen=True)
class Score:
    """Of each target of a request: its natural log-probability, and whether it is the model's likeliest token."""

    log_probabilities: npt.NDArray[np.float32]
    greedy: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scorer:
    """A model and how to run it: ``batch_tokens`` is a batch's size.

    ``padded``: whether the model saw random-length padding in training, so that it may be scored with it.
    """

    model: LanguageModel
    batch_tokens: int | None = None
    padded: bool = True

    def __call__(self, requests: Sequence[Request]) -> list[Score]:
        """Score every request, in the order given.

        A block model gets L - 1 pads on the left, so that it predicts every token but the first. One trained without
        padding gets them only to predict what no block precedes: positions 1 to L - 1. What pads a row on the right
        to its batch's length stands after all of its targets, where no causal model can see it.
        Raises :class:`UserError` where a log-probability is not finite.
        """
        first = self.model.first
        if self.padded or first == 1:
            return self._score(requests, left=first - 1)
        head = {i: Request(r.tokens[:first], r.first) for i, r in enumerate(requests) if r.first < first}
        tail = {i: Request(r.tokens, max(r.first, first)) for i, r in enumerate(requests) if len(r.tokens) > first}
        heads = dict(zip(head, self._score(list(head.values()), left=first - 1), strict=True))
        tails = dict(zip(tail, self._score(list(tail.values()), left=0), strict=True))
        parts = ([part[index] for part in (heads, tails) if index in part] for index in range(len(requests)))
        return [_joined(part) for part in parts]

    def _score(self, requests: Sequence[Request], left: int) -> list[Score]:
        """Scores with ``left`` pads before every request."""
        device = next(self.model.parameters()).device
        budget = self.batch_tokens or (1 << 17 if device.type == "cuda" else 1 << 12)
        scores: dict[int, Score] = {}
        for batch in _batches([len(request.tokens) for request in requests], budget):
            scores |= zip(batch, self._batch([requests[index] for index in batch], left, device), strict=True)
        return [scores[index] for index in range(len(requests))]

    @torch.inference_mode()
    def _batch(self, requests: list[Request], left: int, device: torch.device) -> list[Score]:
        first = self.model.first
        tokens, valid, wanted = _pad(requests, left, first)
        targets = tokens[:, first:][wanted].to(device)
        valid = None if valid is None else valid.to(device)
        hidden = self.model.hidden(tokens.to(device), valid, padded_blocks=False)
        log_probabilities, greedy = _score_rows(self.model, hidden[wanted.to(device)], targets)
        wrong = int((~np.isfinite(log_probabilities)).sum())
        if wrong:
            raise UserError(f"{wrong} of {len(targets)} log-probabilities are not finite: the weights have diverged")
        ends = np.cumsum([len(request.tokens) - request.first for request in requests])[:-1]
        return [Score(*pair) for pair in zip(np.split(log_probabilities, ends), np.split(greedy, ends), strict=True)]


def _batches(lengths: list[int], budget: int) -> Iterator[list[int]]:
    """Indices by falling length, so that rows of a batch are padded little and memory runs out at once or never."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        rows = max(budget // lengths[order[start]], 1)
        yield order[start : start + rows]
        start += rows


def _joined(scores: list[Score]) -> Score:
    """Scores of consecutive targets as one."""
    return Score(
        np.concatenate([score.log_probabilities for score in scores]),
        np.concatenate([score.greedy for score in scores]),
    )


def _pad(requests: list[Request], left: int, first: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Tokens [B, T], valid [B, T] (``None`` without left pads), and the predicted positions to score [B, T - first]."""
    length = left + max(len(request.tokens) for request in requests)
    tokens = torch.zeros((len(requests), length), dtype=torch.long)
    wanted = torch.zeros(len(requests), length - first, dtype=torch.bool)
    for row, request in enumerate(requests):
        tokens[row, left : left + len(request.tokens)] = torch.as_tensor(np.asarray(request.tokens, dtype=np.int64))
        shift = left - first
        wanted[row, request.first + shift : len(request.tokens) + shift] = True
    if not left:
        return tokens, None, wanted
    valid = torch.ones_like(tokens, dtype=torch.bool)
    valid[:, :left] = False
    return tokens, valid, wanted


def _score_rows(
    model: LanguageModel, hidden_RD: torch.Tensor, targets_R: torch.Tensor
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """In pieces of rows, so that [R, V] logits never exist at once; the softmax in fp32 whatever the model's dtype."""
    elements = 1 << 28 if hidden_RD.is_cuda else 1 << 22
    rows = max(elements // model.config.vocabulary, 1)
    pieces, hits = [], []
    for hidden, targets in zip(hidden_RD.split(rows), targets_R.split(rows), strict=True):
        logits = model.logits(hidden).float()
        pieces.append(logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1))
        hits.append(logits.argmax(1) == targets)
    return torch.cat(pieces).cpu().numpy(), torch.cat(hits).cpu().numpy()
