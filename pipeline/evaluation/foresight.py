"""A guard: a model that sees what it is to predict is refused before anything of it is scored.

Some tokens of held-out text are changed, and what predicts the tokens up to them must stay as it was, bit for bit: both
runs have the same shapes and so the same kernels, and a token that is masked adds nothing, not even rounding. Runs of a
device that does not repeat itself are allowed a few times the difference between two runs of the same text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from pipeline.base.errors import UserError
from pipeline.evaluation.scoring import Request, Scorer, Tokens

TEXTS = 8
TOKENS = 64
BLOCKS = 4
"""A text has that many tokens, or that many blocks where those are more."""
DRAWN_FROM = 1 << 14
REPEATS = 8.0
"""How many times what two equal runs differ by is still no change."""

States = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class _Probe:
    """A request, and the token of it that is changed; its length where none is."""

    request: Request
    changed: int

    def with_change(self, vocabulary: int, by: int) -> Request:
        tokens = np.array(self.request.tokens, dtype=np.int64)
        tokens[self.changed : self.changed + 1] = (tokens[self.changed : self.changed + 1] + by) % vocabulary
        return Request(tokens, self.request.first)

    def first_difference(self, before: States, after: States, limit: float = 0.0) -> int | None:
        """The first token up to the changed one that something else predicts now; ``None`` if there is none."""
        rows = slice(0, self.changed + 1 - self.request.first)
        found = np.flatnonzero((np.abs(after[rows] - before[rows]) > limit).any(axis=1))
        return self.request.first + int(found[0]) if len(found) else None


class _Seen(Scorer):
    """Gives what each target is predicted from, hidden states [M, D], in place of log-probabilities."""

    def read(self, hidden_MD: torch.Tensor, targets_M: torch.Tensor) -> tuple[States, npt.NDArray[np.bool_]]:
        return hidden_MD.float().cpu().numpy(), np.zeros(len(targets_M), dtype=bool)

    def states(self, requests: Sequence[Request]) -> list[States]:
        return [score.log_probabilities for score in self(requests)]


def refuse_foresight(scorer: Scorer, documents: Iterable[Tokens], seed: int = 0) -> None:
    """Raise :class:`UserError` where what predicts a token changes with that token, a later one or another text.

    The texts go the two ways that scoring goes, whole and after a prefix that they share; in each some are left as they
    are. Changes stand at as many places of a block as there are texts to change.
    """
    generator = np.random.default_rng(seed)
    probes = _probes(scorer.model.config.context_length, scorer.model.stride, documents, generator)
    seen = _Seen(scorer.model, scorer.batch_tokens, scorer.padded)
    requests = [probe.request for probe in probes]
    vocabulary = scorer.model.config.vocabulary
    changed = [probe.with_change(vocabulary, int(generator.integers(1, vocabulary))) for probe in probes]
    runs = list(zip(probes, seen.states(requests), seen.states(changed), strict=True))
    if any(probe.first_difference(before, after) is not None for probe, before, after in runs):
        again = seen.states(requests)
        noise = max(float(np.abs(one - before).max()) for one, (_, before, _) in zip(again, runs, strict=True))
        for probe, before, after in runs:
            _refuse(probe, probe.first_difference(before, after, REPEATS * noise))


def _refuse(probe: _Probe, token: int | None) -> None:
    if token is None:
        return
    if probe.changed == len(probe.request.tokens):
        raise UserError(
            f"the model sees other texts of its batch: what predicts token {token} of a held-out text changes with them"
        )
    what = "itself" if token == probe.changed else f"token {probe.changed}"
    raise UserError(f"the model sees the future: what predicts token {token} of a held-out text changes with {what}")


def _probes(context: int, stride: int, documents: Iterable[Tokens], generator: np.random.Generator) -> list[_Probe]:
    """Texts of the documents; of those that are changed, each at another place of its block while there are any."""
    stream = _beginning(documents)
    length = min(max(TOKENS, BLOCKS * stride), context, len(stream))
    if length < 2:
        return []
    probes = []
    for number, start in enumerate(generator.integers(len(stream) - length + 1, size=TEXTS)):
        text, changed = stream[start : start + length], length
        if number % 4 != 3:
            changed = _place(1, length, number, stride, generator)
        probes.append(_Probe(Request(text), changed))
    middle = max(length // 2, 1)
    # Texts with one beginning, which is scored once for all of them, as for the choices of an answer.
    places = [_place(middle, length, number, stride, generator) for number in range(2)]
    return probes + [_Probe(Request(text, middle), place) for place in (*places, length)]


def _place(low: int, high: int, number: int, stride: int, generator: np.random.Generator) -> int:
    """A random token from ``low``, before the last one, that is ``number`` modulo the block length, if there is one."""
    places = np.arange(low, max(high - 1, low + 1))
    fitting = places[places % stride == number % stride]
    return int(generator.choice(fitting if len(fitting) else places))


def _beginning(documents: Iterable[Tokens]) -> npt.NDArray[np.int64]:
    """The first tokens of the documents, one after another."""
    parts: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for document in documents:
        parts.append(np.asarray(document, dtype=np.int64))
        if sum(map(len, parts)) >= DRAWN_FROM:
            break
    return np.concatenate(parts)
