"""The decoding engines of both families: a model with its caches, from the prompts to one step after the other.

Legend: B batch, T tokens, N blocks, D width, L tokens per step: the block length, 1 for a vanilla model.
An engine does ``prefill`` on a padded batch, then ``emit`` (choose the next L tokens) and ``advance`` (take them in) in
turn. Nothing here waits for the device, so that a step can be captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from pipeline.generation.cache import Cache, Clock, Recent, Stretch
from pipeline.generation.folded import FoldedStack, fold
from pipeline.generation.ops import TorchOps
from pipeline.generation.token_steps import Choose, PrefixSteps, token_steps
from pipeline.models.block_transformer import BlockTransformer
from pipeline.models.vanilla import VanillaTransformer

Embed = Callable[[slice, int], Tensor]


class CausalStack:
    """A causal stack with its cache: many positions at once (prefill), or one more (step)."""

    def __init__(self, stack: FoldedStack, ops: TorchOps, batch: int, capacity: int, chunk: int) -> None:
        self.stack, self.ops, self.chunk = stack, ops, chunk
        self.cache = Cache(stack.config, stack.norm_weight, batch, capacity)
        self.clock = Clock(stack.norm_weight.device)

    def prefill(self, embed: Embed, length: int, padding: list[int], wanted: int = 1) -> Tensor:
        """Fill the cache with ``length`` positions; the residual stream [wanted, B, D] of the last ones.

        ``embed(rows, first)`` gives the inputs [rows, length - first, D] of some samples from position ``first`` on;
        row b's first ``padding[b]`` positions are padding. Samples go in chunks of about ``chunk`` positions.
        """
        self.cache.set_starts(padding)
        # The last layer's attention is needed at the last positions alone, where it is a decode step each, at the
        # position that the clock shows. Where all rows of a chunk are padding there, 0 stands for it.
        last = self.stack.norm_weight.new_zeros(wanted, len(padding), self.stack.config.width)
        for rows, first in self.chunks(length, padding):
            x = self._all_but_last(embed(rows, first), rows, first, wanted)[:, -wanted:]
            last[wanted - x.shape[1] :, rows] = x.transpose(0, 1)
        for place, x in enumerate(last, start=length - wanted):
            self.clock.set(place)
            self.ops.layer(x, self.stack, len(self.stack.layers) - 1, self._attend_to_cache)
        return last

    def step(self, x: Tensor) -> Tensor:
        """Take in one position per row, [B, D], after the last; the residual stream, in place of ``x``."""
        self.clock.advance()
        for index in range(len(self.stack.layers)):
            self.ops.layer(x, self.stack, index, self._attend_to_cache)
        return x

    def _attend_to_cache(self, u: Tensor, index: int) -> None:
        self.ops.decode_attention(u, self.cache, index, self.clock)

    def chunks(self, length: int, padding: list[int]) -> Iterator[tuple[slice, int]]:
        """Rows of each chunk, and the position before which all of them are padding."""
        size = max(self.chunk // length, 1)
        for begin in range(0, len(padding), size):
            end = min(begin + size, len(padding))
            yield slice(begin, end), min(padding[begin:end])

    def _all_but_last(self, x: Tensor, rows: slice, first: int, wanted: int) -> Tensor:
        """Run [b, T, D] through all layers but the last, of which keys and values are needed up to the ``wanted`` last.

        Returns the last layer's input, [b, T, D].
        """
        batch, length, width = x.shape
        final, stretch = len(self.stack.layers) - 1, Stretch(self.cache, rows, first)
        flat = x.reshape(batch * length, width)
        for index in range(final):
            self.ops.prompt_layer(flat, self.stack, index, stretch)
        x = flat.view(batch, length, width)
        if length > wanted:
            before = x[:, :-wanted].reshape(-1, width)
            self.ops.prompt_keys(before, self.stack, final, stretch)
        return x


class Engine(Protocol):
    """A model with its caches, for one batch; ``stride`` is L."""

    stride: int
    causal: CausalStack

    def prefill(self, tokens: Tensor, padding: list[int]) -> None:
        """Take in ``tokens`` [B, T], T a multiple of L, row b's first ``padding[b]`` being padding."""

    def emit(self, choose: Choose, out: Tensor) -> None:
        """Choose the next L tokens, into ``out`` [B, L]; what is taken in stays as it is."""

    def advance(self, tokens: Tensor) -> None:
        """Take in L tokens per row, [B, L]."""

    @property
    def bytes(self) -> int:
        """Size of the caches."""


class VanillaEngine:
    """A step is one token."""

    stride = 1

    def __init__(self, model: VanillaTransformer, ops: TorchOps, batch: int, capacity: int, chunk: int) -> None:
        self.model, self.ops = model, ops
        self.causal = CausalStack(fold(model.stack), ops, batch, capacity, chunk)
        self._last = model.head_weight.new_empty(batch, model.config.stack.width)

    def prefill(self, tokens: Tensor, padding: list[int]) -> None:
        def embed(rows: slice, first: int) -> Tensor:
            embedded: Tensor = self.model.embedding(tokens[rows, first:])
            return embedded

        (self._last,) = self.causal.prefill(embed, tokens.shape[1], padding)

    def emit(self, choose: Choose, out: Tensor) -> None:
        choose(self.ops.final_norm(self._last, self.causal.stack), out[:, 0])

    def advance(self, tokens: Tensor) -> None:
        self._last = self.causal.step(self.model.embedding(tokens[:, 0]))

    @property
    def bytes(self) -> int:
        return self.causal.cache.bytes


class BlockEngine:
    """A step is one block: L token decoder steps, the block's embedding, one block decoder step.

    The block decoder's positions are blocks: its cache, clock and padding count those, not tokens.
    """

    def __init__(self, model: BlockTransformer, ops: TorchOps, batch: int, capacity: int, chunk: int) -> None:
        self.model, self.ops = model, ops
        self.stride = model.config.block_length
        self.causal = CausalStack(fold(model.block_decoder), ops, batch, capacity // self.stride, chunk)
        self._last = self.causal.stack.norm_weight.new_zeros(batch, model.config.block_decoder.width)
        # What a captured graph reads of the step before: its tokens, its context and the contexts before it, and the
        # embedding of the block before, for an embedder with overlap.
        self.recent = Recent(model.config.recent, torch.zeros(batch, dtype=torch.int64, device=self._last.device))
        self.contexts = Recent(model.config.token_decoder.seen - 1, self._last)
        self._context, self._before = torch.zeros_like(self._last), torch.zeros_like(self._last)
        clock, room = self.causal.clock, self.causal.cache.capacity
        self.tokens = token_steps(model, ops, batch, self.recent, self.contexts, clock, room)
        # Blocks of a prompt that the token decoder takes in: each layer sees one further back than the layer after it.
        self.carried_blocks = model.config.token_decoder.stack.layers if model.config.carried else 0

    def prefill(self, tokens: Tensor, padding: list[int]) -> None:
        blocks = tokens.unflatten(1, (-1, self.stride))
        valid = None
        if any(padding):
            pads = torch.tensor(padding, device=tokens.device)
            position = torch.arange(tokens.shape[1], device=tokens.device)
            valid = (position >= pads[:, None]).unflatten(1, (-1, self.stride))

        def embed(rows: slice, first: int) -> Tensor:
            known = None if valid is None else valid[rows, first:]
            return self.model.embed(blocks[rows, first:], known)

        count, padded = blocks.shape[1], [pad // self.stride for pad in padding]
        carried = min(self.carried_blocks, count - 1)
        wanted = min(1 + len(self.contexts.values) + carried, count)
        residual = self.causal.prefill(embed, count, padded, wanted)
        self._last = residual[-1].clone()
        for place, x in enumerate(residual):
            residual[place] = self._normalised(x)
        if self.carried_blocks:
            self._take_in(tokens, padding, residual, padded, carried)
        if isinstance(self.tokens, PrefixSteps):
            for memory in self.tokens.memories.values():
                memory.begin(padded)
                for rows, first in self.causal.chunks(count, padded):
                    memory.take(blocks[rows, first:], None if valid is None else valid[rows, first:], rows, first)
        self._begin(tokens, padding, residual, padded, count)
        if self.model.overlap is not None:
            tail = slice(-1 - self.model.config.embedder.recent(self.stride) // self.stride, None)
            self._before.copy_(self.model.embedder(blocks[:, tail], None if valid is None else valid[:, tail])[:, -1])

    def _take_in(self, tokens: Tensor, padding: list[int], contexts: Tensor, padded: list[int], carried: int) -> None:
        """Take in a prompt's last ``carried`` blocks; ``contexts`` [.., B, D] are those up to its end."""
        steps, blocks = self.tokens, tokens.unflatten(1, (-1, self.stride))
        assert isinstance(steps, PrefixSteps)
        steps.forget()
        for back in range(carried, 0, -1):
            block = blocks.shape[1] - back
            self._begin(tokens, padding, contexts[:-back], padded, block)
            steps.take(contexts[-1 - back], blocks[:, block], self.carried_blocks - back)
            steps.advance(torch.tensor([pad < block for pad in padded], device=tokens.device))

    def _begin(self, tokens: Tensor, padding: list[int], contexts: Tensor, padded: list[int], block: int) -> None:
        """Remember what precedes a block: ``tokens`` [B, T]; ``contexts`` [.., B, D], the last of which is its own."""
        first = block - len(contexts)
        self.contexts.begin(contexts[:-1], [max(pad - first, 0) for pad in padded])
        self.recent.begin(tokens[:, : block * self.stride].T, padding)

    def emit(self, choose: Choose, out: Tensor) -> None:
        context = self._normalised(self._last)
        if len(self.contexts.values):
            self._context.copy_(context)
        self.tokens.decode(context, choose, out)

    def advance(self, tokens: Tensor) -> None:
        self._last = self.causal.step(self._embed(tokens))
        self.recent.add(tokens.T)
        self.contexts.add(self._context[None])
        self.tokens.advance()

    def _normalised(self, last: Tensor) -> Tensor:
        """The context [B, D] of a residual stream, its norm's scale and bias left to the expansion."""
        stack = self.causal.stack
        return self.ops.normalise(last, stack.shift, stack.config)

    def _embed(self, tokens: Tensor) -> Tensor:
        """[B, L] -> [B, D], the block before's embedding taken in and replaced."""
        blocks, known = tokens[:, None], None
        if count := self.model.config.embedder.recent(self.stride):
            recent, real = self.recent.values[-count:].T, self.recent.known[-count:].T
            blocks = torch.cat([recent, tokens], 1).unflatten(1, (-1, self.stride))
            known = torch.cat([real, torch.ones_like(tokens, dtype=torch.bool)], 1).view(blocks.shape)
        own: Tensor = self.model.embedder(blocks, known)[:, -1].contiguous()
        if self.model.overlap is None:
            return own
        joined = self.model.overlap.join(self._before, own)
        self._before.copy_(own)
        return joined

    @property
    def bytes(self) -> int:
        return self.causal.cache.bytes + self.tokens.bytes + self.contexts.values.nbytes
