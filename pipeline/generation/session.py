"""A batch of prompts of one padded length, decoded from preallocated memory; can be run again and again.

Legend: B batch, T prompt tokens after padding, D width, L tokens per step: the block length, 1 for a vanilla model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.generation.engines import BlockEngine, Engine, VanillaEngine
from pipeline.generation.ops import TorchOps
from pipeline.generation.sampling import Sampling, draw, uniform
from pipeline.models.block_transformer import BlockTransformer
from pipeline.models.language_model import LanguageModel
from pipeline.models.vanilla import VanillaTransformer

Prompts = Sequence[Sequence[int]] | Tensor
"""Token lists of any lengths >= 1, or int64 [B, T]."""

Watch = Callable[[Tensor], bool]
"""Sees the tokens [B, L] of a step, and says whether to go on."""

PREFILL_POSITIONS = {"cpu": 4096, "cuda": 65536}
"""Positions a prefill chunk holds; its activations are some 20 rows of the model's width each."""

CAPTURE_STEPS = 8
"""Recording a step as a graph takes as long as some steps without one."""

LOGIT_BYTES = 1 << 30
"""The most that logits may take while sampling."""


class Chooser:
    """Chooses tokens for hidden states, greedily or by sampling, in chunks of rows that bound the logits' memory."""

    def __init__(self, head: Tensor, ops: TorchOps, sampling: Sampling, batch: int) -> None:
        self.head, self.ops, self.sampling = head, ops, sampling
        self.rows = torch.arange(batch, device=head.device)
        self.index = torch.zeros((), dtype=torch.int64, device=head.device)
        self.chunk = max(LOGIT_BYTES // (16 * head.shape[0]), 1)

    def start(self, rows: Sequence[int]) -> None:
        """``rows`` are the prompts' places in the request, of which the draws are a function."""
        self.rows.copy_(torch.tensor(rows))
        self.index.zero_()

    def __call__(self, hidden: Tensor, out: Tensor) -> None:
        if self.sampling.greedy:
            return self.ops.argmax(hidden, self.head, out)
        number = uniform(self.sampling.seed, self.rows, self.index)
        for begin in range(0, len(hidden), self.chunk):
            part = slice(begin, begin + self.chunk)
            logits = torch.nn.functional.linear(hidden[part], self.head)
            out[part] = draw(logits, number[part], self.sampling)
        self.index.add_(1)


class Handoff:
    """Takes tokens to the host and shows them to ``watch`` while the device works on the next step.

    On a CUDA device ``go_on`` is therefore one step late: the host never waits for a step that has just begun.
    """

    def __init__(self, first: Tensor, watch: Watch) -> None:
        self.watch, self.go_on = watch, True
        self.lagging = first.is_cuda
        self._pending: tuple[Tensor, torch.cuda.Event] | None = None
        self._buffers = [torch.empty(first.shape, dtype=first.dtype, pin_memory=True) for _ in range(2 * self.lagging)]
        self.put(first)

    def put(self, tokens: Tensor) -> None:
        """Take the tokens [B, L] of the next step."""
        if not self.lagging:
            self.go_on = self.watch(tokens)
            return
        # Two buffers in turn: one is copied to while the other, of the step before, is shown.
        self._buffers.reverse()
        buffer, event = self._buffers[0], torch.cuda.Event()
        buffer.copy_(tokens, non_blocking=True)
        event.record()
        self._show()
        self._pending = (buffer, event)

    def finish(self) -> None:
        """Show what is left."""
        if self.go_on:
            self._show()

    def _show(self) -> None:
        if self._pending is not None:
            buffer, event = self._pending
            event.synchronize()
            self._pending = None
            self.go_on = self.watch(buffer)


class Session:
    """``model`` with caches for ``batch`` prompts of at most ``prompt`` tokens and ``new_tokens`` after them."""

    def __init__(
        self,
        model: LanguageModel,
        batch: int,
        prompt: int,
        new_tokens: int,
        sampling: Sampling | None = None,
        chunk: int | None = None,
        ops: TorchOps | None = None,
    ) -> None:
        device = next(model.parameters()).device
        self.ops = ops or choose_ops(model)
        self.batch, self.device = batch, device
        stride = model.stride
        self.prompt = -(-prompt // stride) * stride
        self.steps = -(-new_tokens // stride)
        capacity = self.prompt + self.steps * stride
        chunk = chunk or PREFILL_POSITIONS[device.type]
        self.engine = _engine(model, self.ops, batch, capacity, chunk)
        self.choose = Chooser(model.head_weight, self.ops, sampling or Sampling(), batch)
        self.new_tokens = new_tokens
        self.output = torch.zeros(batch, self.steps * stride, dtype=torch.int64, device=device)
        # The L tokens of the step at hand: a captured graph reads and writes this memory at every replay.
        self._block = torch.zeros(batch, stride, dtype=torch.int64, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None

    @torch.inference_mode()
    def run(self, prompts: Prompts, rows: Sequence[int] | None = None, watch: Watch | None = None) -> Tensor:
        """Generate [B, new tokens] after ``prompts``; ``watch`` may end it early, the rest being undefined then."""
        self.prefill(prompts, rows)
        self.decode(watch)
        return self.output[:, : self.new_tokens]

    @torch.inference_mode()
    def prefill(self, prompts: Prompts, rows: Sequence[int] | None = None) -> None:
        """Take in the prompts and choose the first L tokens. ``rows``: the prompts' places in the request."""
        tokens, padding = _padded(prompts, self.engine.stride)
        assert len(tokens) == self.batch
        assert tokens.shape[1] <= self.prompt
        self.choose.start(range(self.batch) if rows is None else rows)
        self.engine.prefill(tokens.to(self.device), padding)
        self.engine.emit(self.choose, self._block)
        self.output[:, : self.engine.stride] = self._block

    @torch.inference_mode()
    def decode(self, watch: Watch | None = None) -> None:
        """Generate what follows the first L tokens."""
        stride = self.engine.stride
        handoff = None if watch is None else Handoff(self._block, watch)
        for step in range(1, self.steps):
            if handoff is not None and not handoff.go_on:
                return
            self.step()
            self.output[:, step * stride : (step + 1) * stride] = self._block
            if handoff is not None:
                handoff.put(self._block)
        if handoff is not None:
            handoff.finish()

    def warm_up(self, prompts: Prompts) -> None:
        """Do once what only the first run does: compile kernels, capture the step's graph."""
        self.prefill(prompts)
        for _ in range(min(2, self.steps - 1)):
            self.step()

    def check_finite(self) -> None:
        """Raise :class:`UserError` unless the hidden states that the first tokens were chosen from are finite.

        After :meth:`prefill`, whose choice is repeated for it, the same tokens: a step has no room for a check.
        """
        finite: list[Tensor] = []

        def look(hidden: Tensor, out: Tensor) -> None:
            out.copy_(self._block[:, len(finite)])
            finite.append(hidden.isfinite().all(-1))

        with torch.inference_mode():
            self.engine.emit(look, torch.zeros_like(self._block))
            wrong = int((~torch.stack(finite)).sum())
        if wrong:
            raise UserError(f"{wrong} of {self._block.numel()} hidden states are not finite: the weights have diverged")

    @torch.inference_mode()
    def step(self) -> None:
        """Take in the newest L tokens and choose the next ones, of which nothing is kept: :meth:`decode` keeps them."""
        if self._graph is not None:
            self._graph.replay()
            self.engine.causal.clock.host += 1  # the graph advances the device's clock alone
            return
        self._eager_step()
        if self.ops.graphs and self.steps > CAPTURE_STEPS:
            self._capture()

    def _eager_step(self) -> None:
        self.engine.advance(self._block)
        self.engine.emit(self.choose, self._block)

    def _capture(self) -> None:
        """Record a step. Lengths, starts and draws are read from the device, so one graph serves all steps and runs."""
        clock = self.engine.causal.clock
        position = clock.host
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            self._eager_step()
        clock.host = position
        self._graph = graph

    @property
    def bytes(self) -> int:
        """Size of the caches, the output, and the logits of a step: what grows with the batch."""
        logits = min(self.batch, self.choose.chunk) * self.choose.head.shape[0] * self.choose.head.element_size()
        return self.engine.bytes + self.output.nbytes + logits


def _engine(model: LanguageModel, ops: TorchOps, batch: int, capacity: int, chunk: int) -> Engine:
    if isinstance(model, VanillaTransformer):
        return VanillaEngine(model, ops, batch, capacity, chunk)
    assert isinstance(model, BlockTransformer)
    return BlockEngine(model, ops, batch, capacity, chunk)


def choose_ops(model: LanguageModel) -> TorchOps:
    """Triton kernels on a CUDA device, for head widths that they can tile; otherwise plain torch."""
    device = next(model.parameters()).device
    if device.type != "cuda":
        return TorchOps()
    from pipeline.generation.triton_ops import TritonOps

    return TritonOps(device) if TritonOps.supports(model) else TorchOps()


def _padded(prompts: Prompts, stride: int) -> tuple[Tensor, list[int]]:
    """Tokens [B, T], T a multiple of ``stride``, and the length of each row's left padding."""
    if isinstance(prompts, Tensor):
        pad = -prompts.shape[1] % stride
        return torch.nn.functional.pad(prompts, (pad, 0)), [pad] * len(prompts)
    length = -(-max(map(len, prompts)) // stride) * stride
    padding = [length - len(prompt) for prompt in prompts]
    rows = [[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    return torch.tensor(rows), padding
