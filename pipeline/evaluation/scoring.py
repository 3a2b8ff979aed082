"""Log-probabilities of given tokens under any language model of the project.

Shapes: B batch, T tokens, R rows that are scored, D width, V vocabulary, L block length (1 for a vanilla model).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from pipeline.base.errors import UserError

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
        first = self.model.stride
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
        trunks = self._trunks(requests, left)
        whole = [index for index, trunk in enumerate(trunks) if trunk is None]
        branches = {index: trunk for index, trunk in enumerate(trunks) if trunk is not None}
        scores: dict[int, Score] = {}
        for batch in _batches(whole, lambda index: len(requests[index].tokens), budget):
            scores |= zip(batch, self._batch([requests[index] for index in batch], left, device), strict=True)
        order = sorted(branches, key=lambda index: (-len(branches[index]), branches[index]))
        for batch in _batches(order, lambda index: left + len(requests[index].tokens), budget, keep_order=True):
            members = [(requests[index], branches[index]) for index in batch]
            scores |= zip(batch, self._branches(members, left, device), strict=True)
        return [scores[index] for index in range(len(requests))]

    def _trunks(self, requests: Sequence[Request], left: int) -> list[bytes | None]:
        """What stands before each request's targets and is worth a pass of its own, as int64 bytes.

        For a vanilla model what several requests share; for a block model all, as no token decoder needs it.
        """
        first = self.model.stride
        trunks = []
        for request in requests:
            blocks = (left + request.first) // first - 1
            tokens = np.asarray(request.tokens[: max(blocks * first - left, 0)], dtype=np.int64)
            trunks.append(tokens.tobytes())
        counts = Counter(trunks)
        return [trunk if trunk and (first > 1 or counts[trunk] > 1) else None for trunk in trunks]

    @torch.inference_mode()
    def _batch(self, requests: list[Request], left: int, device: torch.device) -> list[Score]:
        tokens, valid = _stacked([request.tokens for request in requests], left)
        valid = None if valid is None else valid.to(device)
        hidden = self.model.hidden(tokens.to(device), valid, padded_blocks=False)
        return self._scores(requests, hidden, tokens, left)

    @torch.inference_mode()
    def _branches(self, members: list[tuple[Request, bytes]], left: int, device: torch.device) -> list[Score]:
        """Scores of requests after their trunks, each of which runs once."""
        place = {trunk: number for number, trunk in enumerate(dict.fromkeys(trunk for _, trunk in members))}
        trunks = [np.frombuffer(trunk, dtype=np.int64) for trunk in place]
        trunk, trunk_valid = _stacked(trunks, left)
        requests = [_after(request, len(kept) // trunks[0].itemsize) for request, kept in members]
        tokens, _ = _stacked([request.tokens for request in requests], 0)
        lengths = torch.tensor([(left + len(row)) // self.model.stride for row in trunks], device=device)
        owner = torch.tensor([place[kept] for _, kept in members], device=device)
        valid = None
        if trunk_valid is not None:
            valid = trunk_valid.to(device), torch.ones(tokens.shape, dtype=torch.bool, device=device)
        hidden = self.model.branch(trunk.to(device), lengths, tokens.to(device), owner, valid)
        return self._scores(requests, hidden, tokens, 0)

    def _scores(
        self, requests: Sequence[Request], hidden: torch.Tensor, tokens: torch.Tensor, left: int
    ) -> list[Score]:
        first = self.model.stride
        predicted = tokens[:, first:]
        wanted = _wanted(requests, predicted.shape, left - first)
        targets = predicted[wanted].to(hidden.device)
        hidden = hidden[:, : predicted.shape[1]][wanted.to(hidden.device)]
        log_probabilities, greedy = _score_rows(self.model, hidden, targets)
        wrong = int((~np.isfinite(log_probabilities)).sum())
        if wrong:
            raise UserError(f"{wrong} of {len(targets)} log-probabilities are not finite: the weights have diverged")
        ends = np.cumsum([len(request.tokens) - request.first for request in requests])[:-1]
        return [Score(*pair) for pair in zip(np.split(log_probabilities, ends), np.split(greedy, ends), strict=True)]


def _after(request: Request, count: int) -> Request:
    """The request without its first ``count`` tokens."""
    return Request(request.tokens[count:], request.first - count)


def _batches(
    indices: Iterable[int], length: Callable[[int], int], budget: int, keep_order: bool = False
) -> Iterator[list[int]]:
    """Indices by falling length, so that rows of a batch are padded little and memory runs out at once or never."""
    order = list(indices) if keep_order else sorted(indices, key=lambda index: -length(index))
    batch: list[int] = []
    longest = 0
    for index in order:
        longest = max(longest, length(index))
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch, longest = [], length(index)
        batch.append(index)
    if batch:
        yield batch


def _joined(scores: list[Score]) -> Score:
    """Scores of consecutive targets as one."""
    return Score(
        np.concatenate([score.log_probabilities for score in scores]),
        np.concatenate([score.greedy for score in scores]),
    )


def _stacked(rows: Sequence[Tokens], left: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Tokens [B, T] after ``left`` pads each, and valid [B, T], ``None`` without pads."""
    tokens = torch.zeros((len(rows), left + max(map(len, rows))), dtype=torch.long)
    for place, row in enumerate(rows):
        tokens[place, left : left + len(row)] = torch.tensor(np.asarray(row, dtype=np.int64))
    if not left:
        return tokens, None
    valid = torch.ones_like(tokens, dtype=torch.bool)
    valid[:, :left] = False
    return tokens, valid


def _wanted(requests: Sequence[Request], shape: torch.Size, shift: int) -> torch.Tensor:
    """Of the predicted positions, a tensor of ``shape`` [B, T - first], those to score."""
    wanted = torch.zeros(shape, dtype=torch.bool)
    for row, request in enumerate(requests):
        wanted[row, request.first + shift : len(request.tokens) + shift] = True
    return wanted


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
