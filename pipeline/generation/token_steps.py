"""Decoding the tokens of one block from its context, for every kind of token decoder.

Legend: B batch, L block length, D block decoder width, W token decoder width, S slots of a context, P positions, r
tokens before the block, w contexts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pipeline.generation.cache import Clock, LocalCache, Recent
from pipeline.generation.folded import fold, fold_norm
from pipeline.generation.memory_steps import MemorySteps
from pipeline.generation.ops import TorchOps
from pipeline.models.attention import Mask, attend
from pipeline.models.block_transformer import BlockTransformer
from pipeline.models.layers import Stack
from pipeline.models.t5 import T5Layer
from pipeline.models.token_decoders import (
    CrossAttentionTokenDecoder,
    PrefixTokenDecoder,
    SummationTokenDecoder,
    TokenDecoder,
)

Choose = Callable[[Tensor, Tensor], None]
"""Chooses tokens for hidden states [B, W] into int64 [B]."""


class TokenSteps(Protocol):
    """A token decoder with its cache, for one batch."""

    def decode(self, context: Tensor, choose: Choose, out: Tensor) -> None:
        """Choose a block, into ``out`` [B, L]; ``context`` [B, D] is the block decoder's normalised residual stream."""

    def advance(self, known: Tensor | bool = True) -> None:
        """Go on to the next block; ``known`` bool [B]: whether the block exists that was decoded."""

    @property
    def bytes(self) -> int:
        """Size of the cache."""


class Expansion:
    """Context to slots, the block decoder's final norm (its scale and bias) included."""

    def __init__(self, model: BlockTransformer) -> None:
        decoder = model.token_decoder
        # The stored matrix is [S * W, D], slot by slot; as [S, W, D] it is a batch of S products.
        weight, bias = fold_norm(model.block_decoder.norm, decoder.expansion)
        dtype = decoder.expansion.weight.dtype
        self.slots = decoder.slots
        self.weight = weight.to(dtype).unflatten(0, (self.slots, -1))
        self.bias = bias.to(dtype).unflatten(0, (self.slots, 1, -1))

    def __call__(self, context: Tensor) -> Tensor:
        """[B, D] -> [S, B, W]: one product per slot, each slot's rows together as the steps read them."""
        return torch.baddbmm(self.bias, context.expand(self.slots, -1, -1), self.weight.mT)


class StackSteps:
    """Base of the token decoders that are a causal stack over P positions."""

    def __init__(
        self,
        model: BlockTransformer,
        stack: Stack,
        ops: TorchOps,
        batch: int,
        positions: int,
        masked: int = 0,
        carried: int = 0,
    ) -> None:
        self.ops, self.embedding = ops, model.token_decoder.embedding
        self.expand = Expansion(model)
        self.stack = fold(stack)
        self.cache = LocalCache(self.stack, batch, positions, masked, carried)

    def advance(self, known: Tensor | bool = True) -> None:
        self.cache.carry(known)

    @property
    def bytes(self) -> int:
        return self.cache.bytes

    def _step(self, x: Tensor, position: int) -> Tensor:
        """Take in one position, [B, W], which is overwritten; the stack's output."""

        def attend(u: Tensor, index: int) -> None:
            self.ops.local_attention(u, self.cache, index, position)

        for index in range(len(self.stack.layers)):
            self._look_up(x, index)
            self.ops.layer(x, self.stack, index, attend)
        return self.ops.final_norm(x, self.stack)

    def _look_up(self, x: Tensor, index: int) -> None:
        """Whatever the rows [B, W] of a position take in before a layer, in place."""


class PrefixSteps(StackSteps):
    """r tokens and w * S slots before the block's: one pass, whose last output gives a token, then L - 1 positions.

    The r tokens pass a second time, once per block: the keys that they had in their own block saw another prefix. A
    block's last token is chosen and not taken in, so that it has no position. Carried keys and values, those that
    tokens had in the block before, stand before all of that.
    ``recent`` and ``contexts`` hold the tokens before the block and the contexts before the one that is decoded.
    """

    def __init__(
        self,
        model: BlockTransformer,
        decoder: PrefixTokenDecoder,
        ops: TorchOps,
        batch: int,
        recent: Recent,
        contexts: Recent,
        memories: dict[int, MemorySteps],
    ) -> None:
        self.first = carried = model.config.carried
        positions = carried + decoder.ahead + model.config.block_length - 1
        super().__init__(model, decoder.stack, ops, batch, positions, carried + decoder.ahead - decoder.slots, carried)
        self.local, self.recent, self.contexts = decoder.local, recent, contexts
        self.memories = memories  # by the layer before which they are looked at
        # [S * W, r * W] -> [S, r * W, W]
        self.mixing = None if decoder.mixing is None else decoder.mixing.weight.unflatten(0, (decoder.slots, -1)).mT

    @property
    def bytes(self) -> int:
        return super().bytes + sum(memory.bytes for memory in self.memories.values())

    def decode(self, context: Tensor, choose: Choose, out: Tensor) -> None:
        for memory in self.memories.values():
            memory.remember(self.recent)
        before = self._before(context)
        choose(self._pass(before), out[:, 0])
        for place in range(1, out.shape[1]):
            hidden = self._step(self.embedding(out[:, place - 1]), self.first + len(before) + place - 1)
            choose(hidden, out[:, place])

    def forget(self) -> None:
        """Before the first block: nothing is carried to it."""
        self.cache.known[: self.first] = False

    def take(self, context: Tensor, tokens: Tensor, depth: int) -> None:
        """Take in a known block, [B, L], as deep as the blocks after it see it: to the keys of layer ``depth``."""
        x = torch.cat([self._before(context), self.embedding(tokens[:, :-1].T)]).flatten(0, 1)
        self._through(x, depth)
        self._keep(x, depth)

    def _before(self, context: Tensor) -> Tensor:
        """What stands before the block's tokens, [r + w * S, B, W], of its ``context`` [B, D]."""
        parts = [self.expand(context)]
        if len(self.contexts.values):
            older = self.contexts.values  # [w - 1, B, D]
            slots = self.expand(older.flatten(0, 1)).unflatten(1, older.shape[:2])  # [S, w - 1, B, W]
            parts.insert(0, slots.transpose(0, 1).flatten(0, 1))
            known = self.contexts.known[:, None].expand(-1, len(slots), -1)  # [w - 1, S, B]
            self.cache.known[-(older.shape[0] * len(slots)) :] = known.flatten(0, 1)
        if self.local:
            first = len(self.recent.values) - self.local
            known, embedded = self.recent.known[first:], self.embedding(self.recent.values[first:])
            if self.mixing is None:
                parts.insert(0, embedded)
                self.cache.known[self.first : self.first + self.local] = known
            else:
                mixed = (embedded * known[..., None]).transpose(0, 1).flatten(1)
                parts[-1] = torch.baddbmm(parts[-1], mixed.expand(len(parts[-1]), -1, -1), self.mixing)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _pass(self, before: Tensor) -> Tensor:
        """[positions, B, W] -> the stack's output [B, W] at the last of these first positions."""
        batch, x = before.shape[1], before.flatten(0, 1)
        final = len(self.stack.layers) - 1
        self._through(x, final)
        # Of the positions before the last nobody reads more than the keys and values of the last layer.
        last = x[-batch:]
        if len(before) > 1:
            self._keep(x[:-batch], final)
        self._look_up(last, final)
        self.ops.layer(
            last,
            self.stack,
            final,
            lambda u, index: self.ops.local_attention(u, self.cache, index, self.first + len(before) - 1),
        )
        return self.ops.final_norm(last, self.stack)

    def _through(self, x: Tensor, layers: int) -> None:
        """A block's first positions through that many layers; ``x`` [positions * B, W], row p * B + b, overwritten."""
        batch = self.cache.keys.shape[2]

        def attend(u: Tensor, index: int) -> None:
            # In order, as each position stores the key that the later ones read.
            for place, part in enumerate(u.split(batch)):
                self.ops.local_attention(part, self.cache, index, self.first + place)

        for index in range(layers):
            self._look_up(x[-batch:], index)
            self.ops.layer(x, self.stack, index, attend)

    def _look_up(self, x: Tensor, index: int) -> None:
        """Before the layer that reads what was looked up: the positions [B, W] that predict a token, in place."""
        if index in self.memories:
            self.memories[index](x, self.stack.layers[index].shift)

    def _keep(self, x: Tensor, index: int) -> None:
        """Only the keys and values of a layer, for a block's first positions, laid out as above."""
        layer = self.stack.layers[index]
        y = self.ops.normalise(x, layer.shift, self.stack.config)
        self.ops.store_local(self.ops.key_values(y, layer, self.stack), self.cache, index)


class SummationSteps(StackSteps):
    """Slot j is added to the j-th input: the start token, then the block's tokens."""

    def __init__(self, model: BlockTransformer, decoder: SummationTokenDecoder, ops: TorchOps, batch: int) -> None:
        super().__init__(model, decoder.stack, ops, batch, model.config.block_length)
        self.start = torch.full((batch,), decoder.start_token, device=decoder.embedding.weight.device)

    def decode(self, context: Tensor, choose: Choose, out: Tensor) -> None:
        tokens = self.start
        for place, slot in enumerate(self.expand(context)):
            choose(self._step(self.embedding(tokens) + slot, place), out[:, place])
            tokens = out[:, place]


class CrossAttentionSteps:
    """A T5 decoder that attends to the slots, whose keys and values are computed once per block."""

    def __init__(self, model: BlockTransformer, decoder: CrossAttentionTokenDecoder, ops: TorchOps, batch: int) -> None:
        self.t5, self.embedding, self.scale = decoder.decoder, decoder.embedding, decoder.width**-0.5
        self.expand = Expansion(model)
        config, length, weight = decoder.decoder.config, model.config.block_length, decoder.embedding.weight
        # Keys and values of the block so far, [layers, B, KV, L, head width] each.
        shape = (2, config.layers, batch, config.kv_heads, length, config.head_width)
        self.keys, self.values = weight.new_zeros(shape)
        self.start = torch.full((batch,), decoder.start_token, device=weight.device)
        with torch.no_grad():
            # One a place of the block: relative positions of a single query, [1, heads, 1, place + 1].
            self.masks = [Mask(bias=decoder.decoder.bias(1, place + 1).to(weight.dtype)) for place in range(length)]

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def advance(self, known: Tensor | bool = True) -> None:
        pass

    def decode(self, context: Tensor, choose: Choose, out: Tensor) -> None:
        slots = self.expand(context).transpose(0, 1)
        cross = [self._layer(index).cross_key_value(slots) for index in range(len(self.t5.layers))]
        tokens = self.start
        for place in range(out.shape[1]):
            choose(self._step(self.embedding(tokens)[:, None], place, cross), out[:, place])
            tokens = out[:, place]

    def _step(self, x: Tensor, place: int, cross: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Take in one position, [B, 1, W]; the hidden state [B, W]. ``cross``: layers' keys, values of slots."""
        for index in range(len(self.t5.layers)):
            layer = self._layer(index)
            query, self.keys[index, :, :, place : place + 1], self.values[index, :, :, place : place + 1] = layer.qkv(x)
            seen = slice(place + 1)
            attended = attend(
                query, self.keys[index, :, :, seen], self.values[index, :, :, seen], self.masks[place], scale=1.0
            )
            x = layer.finish(x, attended, *cross[index])
        hidden: Tensor = self.t5.norm(x)[:, 0] * self.scale
        return hidden

    def _layer(self, index: int) -> T5Layer:
        layer = self.t5.layers[index]
        assert isinstance(layer, T5Layer)
        return layer


def token_steps(
    model: BlockTransformer, ops: TorchOps, batch: int, recent: Recent, contexts: Recent, clock: Clock, blocks: int
) -> TokenSteps:
    """The steps of the model's token decoder; ``recent`` tokens and ``contexts`` are those before what it decodes.

    ``clock`` shows the newest of the at most so many ``blocks``.
    """
    decoder: TokenDecoder = model.token_decoder
    if isinstance(decoder, PrefixTokenDecoder):
        memories = {
            layer: MemorySteps(model, attention, ops, batch, clock, blocks)
            for layer, attention in zip(decoder.looking, decoder.memory_attention, strict=True)
        }
        return PrefixSteps(model, decoder, ops, batch, recent, contexts, memories)
    if isinstance(decoder, SummationTokenDecoder):
        return SummationSteps(model, decoder, ops, batch)
    assert isinstance(decoder, CrossAttentionTokenDecoder)
    return CrossAttentionSteps(model, decoder, ops, batch)
