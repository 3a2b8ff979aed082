"""Log-probabilities of given tokens under any language model of the project.

Shapes: B batch, T tokens, M targets that are scored, D width, V vocabulary, L block length (1 for a vanilla model).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from pipeline.base.errors import UserError
from pipeline.base.progress import Progress

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
    ``progress`` makes the line that tells how many of so many requests are scored; without it nothing is told.
    """

    model: LanguageModel
    batch_tokens: int | None = None
    padded: bool = True
    progress: Callable[[int], Progress] | None = None

    def __call__(self, requests: Sequence[Request], aligned: bool = False) -> list[Score]:
        """Score every request, in the order given.

        A block model gets L - 1 pads on the left, so that it predicts every token but the first. ``aligned``: it gets 0
        to L - 1, so that each request's first target begins a block, as what is generated after a prompt does. One
        trained without padding gets pads only to predict what no block precedes: positions 1 to L - 1. What pads per
        row on the right to its batch's length stands after all of its targets, where no causal model can see it.
        Raises :class:`UserError` where a log-probability is not finite.
        """
        first = self.model.stride
        if self.padded or first == 1:
            lefts = [-request.first % first if aligned else first - 1 for request in requests]
            parts = {left: {i: r for i, r in enumerate(requests) if lefts[i] == left} for left in dict.fromkeys(lefts)}
        else:
            # A request whose targets lie on both sides of position L is two: its head in blocks shifted by the pads,
            # its tail in blocks that begin with the first token, as in training.
            head = {i: Request(r.tokens[:first], r.first) for i, r in enumerate(requests) if r.first < first}
            tail = {i: Request(r.tokens, max(r.first, first)) for i, r in enumerate(requests) if len(r.tokens) > first}
            parts = {first - 1: head, 0: tail}
        scored = self._score(parts)
        return [_joined([scores[index] for scores in scored if index in scores]) for index in range(len(requests))]

    def block_position(self, token: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Where in its block, from 0 on, each token of a request is decoded, if it is not aligned.

        L - 1 pads put token p at position p + L - 1, which is p - 1 modulo L. Without padding in training they stand
        before the first L tokens alone.
        """
        length = self.model.stride
        shift = 1 if self.padded else (token < length).astype(np.int64)
        return (token - shift) % length

    def _score(self, parts: Mapping[int, Mapping[int, Request]]) -> list[dict[int, Score]]:
        """Scores of requests by number, each behind as many pads on the left as the key of its part says."""
        progress = self.progress(sum(map(len, parts.values()))) if self.progress else None
        done: list[dict[int, Score]] = []
        for left, part in parts.items():
            scores = self._score_behind(left, list(part.values()), progress, sum(map(len, done)))
            done.append(dict(zip(part, scores, strict=True)))
        if progress:
            progress.close()
        return done

    def _score_behind(
        self, left: int, requests: Sequence[Request], progress: Progress | None, before: int
    ) -> list[Score]:
        """Scores with ``left`` pads before every request, of which the line counts ``before`` others first."""
        device = next(self.model.parameters()).device
        budget = self.batch_tokens or (1 << 17 if device.type == "cuda" else 1 << 12)
        prefixes = self._prefixes(requests, left)
        whole = [index for index, prefix in enumerate(prefixes) if prefix is None]
        shared = {index: prefix for index, prefix in enumerate(prefixes) if prefix is not None}
        scores: dict[int, Score] = {}
        for batch in _batches(whole, lambda index: len(requests[index].tokens), budget):
            _show(progress, before + len(scores))
            scores |= zip(batch, self._score_whole([requests[index] for index in batch], left, device), strict=True)
        # By length, so that rows of a batch are padded little; then by content, so that one batch has all requests
        # of a prefix, which then runs once.
        order = sorted(shared, key=lambda index: (-len(shared[index]), shared[index]))
        for batch in _batches(order, lambda index: left + len(requests[index].tokens), budget, keep_order=True):
            _show(progress, before + len(scores))
            members = [(requests[index], shared[index]) for index in batch]
            scores |= zip(batch, self._score_continuations(members, left, device), strict=True)
        return [scores[index] for index in range(len(requests))]

    def _prefixes(self, requests: Sequence[Request], left: int) -> list[bytes | None]:
        """What stands before each request's targets and is worth a pass of its own, as int64 bytes.

        For a vanilla model what several requests share; for a block model all, of which a token decoder needs the last
        blocks at most.
        """
        length = self.model.stride
        prefixes = []
        for request in requests:
            # The first target stands at position left + first, in block (left + first) // L. The block before it makes
            # its context and begins the continuation; all blocks before that one are the prefix. With L = 4, left = 3,
            # first = 6 (T: the first target):
            #     - - - 0 | 1 2 3 4 | 5 T 7 8      the prefix is one block: token 0 behind three pads
            # For a vanilla model a block is a token: the prefix is all but the last token before the target.
            blocks = (left + request.first) // length - 1
            tokens = np.asarray(request.tokens[: max(blocks * length - left, 0)], dtype=np.int64)
            prefixes.append(tokens.tobytes())  # equal tokens are equal keys
        counts = Counter(prefixes)
        return [prefix if prefix and (length > 1 or counts[prefix] > 1) else None for prefix in prefixes]

    @torch.inference_mode()
    def _score_whole(self, requests: list[Request], left: int, device: torch.device) -> list[Score]:
        """Scores of requests without a prefix of their own."""
        tokens, valid = _stacked([request.tokens for request in requests], left)
        valid = None if valid is None else valid.to(device)
        hidden = self.model.hidden(tokens.to(device), valid, padded_blocks=False)
        return self._scores(requests, hidden, tokens, left)

    @torch.inference_mode()
    def _score_continuations(
        self, members: list[tuple[Request, bytes]], left: int, device: torch.device
    ) -> list[Score]:
        """Scores of requests after their prefixes, each of which runs once."""
        place = {prefix: number for number, prefix in enumerate(dict.fromkeys(prefix for _, prefix in members))}
        rows = [np.frombuffer(prefix, dtype=np.int64) for prefix in place]
        prefixes, prefix_valid = _stacked(rows, left)
        requests = [_after(request, len(rows[place[prefix]])) for request, prefix in members]
        tokens, _ = _stacked([request.tokens for request in requests], 0)  # the pads stand in the prefix
        lengths = torch.tensor([(left + len(row)) // self.model.stride for row in rows], device=device)
        prefix_index = torch.tensor([place[prefix] for _, prefix in members], device=device)
        valid = None
        if prefix_valid is not None:
            valid = prefix_valid.to(device), torch.ones(tokens.shape, dtype=torch.bool, device=device)
        hidden = self.model.branch(prefixes.to(device), lengths, tokens.to(device), prefix_index, valid)
        return self._scores(requests, hidden, tokens, 0)

    def _scores(
        self, requests: Sequence[Request], hidden: torch.Tensor, tokens: torch.Tensor, left: int
    ) -> list[Score]:
        """Scores from ``hidden`` [B, T - first or more, D] and ``tokens`` [B, T], each after ``left`` pads."""
        first = self.model.stride
        predicted = tokens[:, first:]  # [:, i] is what row i of the hidden states predicts
        wanted = _wanted(requests, predicted.shape, left - first)
        # A mask takes its elements row by row, so that the targets of a request stay together, in order: [M].
        targets = predicted[wanted].to(hidden.device)
        hidden = hidden[:, : predicted.shape[1]][wanted.to(hidden.device)]
        log_probabilities, greedy = self.read(hidden, targets)
        wrong = int((~np.isfinite(log_probabilities)).sum())
        if wrong:
            raise UserError(f"{wrong} of {len(targets)} log-probabilities are not finite: the weights have diverged")
        ends = np.cumsum([len(request.tokens) - request.first for request in requests])[:-1]
        return [Score(*pair) for pair in zip(np.split(log_probabilities, ends), np.split(greedy, ends), strict=True)]

    def read(
        self, hidden_MD: torch.Tensor, targets_M: torch.Tensor
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """What a :class:`Score` holds of targets, from what predicts them.

        In pieces of rows, so that [M, V] logits never exist at once; the softmax in fp32 whatever the model's dtype.
        """
        elements = 1 << 28 if hidden_MD.is_cuda else 1 << 22
        rows = max(elements // self.model.config.vocabulary, 1)
        pieces, hits = [], []
        for hidden, targets in zip(hidden_MD.split(rows), targets_M.split(rows), strict=True):
            logits = self.model.logits(hidden).float()
            pieces.append(logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1))
            hits.append(logits.argmax(1) == targets)
        return torch.cat(pieces).cpu().numpy(), torch.cat(hits).cpu().numpy()


def _after(request: Request, count: int) -> Request:
    """The request without its first ``count`` tokens."""
    return Request(request.tokens[count:], request.first - count)


def _show(progress: Progress | None, done: int) -> None:
    if progress:
        progress.show(done)


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
    """Of the predicted positions, a tensor of ``shape`` [B, T - first], those to score.

    Token p of a request stands at position ``left + p``, which column ``left + p - first`` predicts: ``shift`` further.
    """
    wanted = torch.zeros(shape, dtype=torch.bool)
    for row, request in enumerate(requests):
        wanted[row, request.first + shift : len(request.tokens) + shift] = True
    return wanted
