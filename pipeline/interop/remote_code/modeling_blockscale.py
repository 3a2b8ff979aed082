"""Block Transformers (arXiv 2406.02657), and the vanilla ones that transformers has no class for, for transformers.

`python -m pipeline export` copies this file beside a model's weights, where ``AutoModelForCausalLM.from_pretrained``
finds it with ``trust_remote_code=True``; it needs torch and transformers alone. It is for reading and for use at small
scale: every new token runs the whole model again, without a cache.

Shapes: B batch, T tokens, N blocks, L block length, D block decoder's width, V vocabulary. ``valid`` is False at
padding. Configurations ``c`` are dictionaries of ``config.json``; a key that is absent has its default.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .layers_blockscale import Between, Json, RobertaEncoder, Stack, T5Decoder, attend, norm_of

CLS_TOKEN = 0
IGNORED = -100  # a label that has no part in the loss, as everywhere in transformers
START_TOKENS = {"summation": 0, "cross_attention": 1}


class BlockscaleConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """``model``: the architecture; ``padding``: whether a block transformer saw random-length padding in training."""

    model_type = "blockscale"

    def __init__(self, model: Json | None = None, padding: bool = True, **others: Any) -> None:
        self.model, self.padding = model or {}, padding
        super().__init__(**others)


def windows_before(stream: Tensor, count: int, step: int, first: int) -> Tensor:
    """The ``count`` elements before each ``step``-th one: [B, T, ...] -> [B, T / step + 1 - first, count, ...].

    Window i ends before element ``(first + i) * step``; 0 stands for what precedes the stream.
    """
    padded = torch.cat([stream.new_zeros(len(stream), count, *stream.shape[2:]), stream], dim=1)
    return padded.unfold(1, count, step)[:, first:].movedim(-1, 2)


class EncoderEmbedder(nn.Module):
    """Projects RoBERTa's outputs: of the block's tokens, or of ``cls_tokens`` that stand before them."""

    def __init__(self, c: Json) -> None:
        super().__init__()
        embedder = c["embedder"]
        self.cls_tokens = embedder["cls_tokens"]
        self.encoder = RobertaEncoder(c["vocabulary"], embedder["stack"], embedder["padding_token"])
        inputs = (self.cls_tokens or c["block_length"]) * embedder["stack"]["width"]
        self.projection = nn.Linear(inputs, c["block_decoder"]["width"])

    def forward(self, blocks: Tensor, valid: Tensor) -> Tensor:
        """[B, N, L] -> [B, N, D]."""
        tokens = F.pad(blocks.flatten(0, 1), (self.cls_tokens, 0), value=CLS_TOKEN)
        encoded = self.encoder(tokens, F.pad(valid.flatten(0, 1), (self.cls_tokens, 0), value=True))
        outputs = encoded[:, : self.cls_tokens] if self.cls_tokens else encoded
        return self.projection(outputs.flatten(1)).view(*blocks.shape[:2], -1)


class TableEmbedder(nn.Module):
    """Concatenates the rows of a block's tokens; ``projection`` maps them to D, ``convolution`` reads tokens before."""

    def __init__(self, c: Json) -> None:
        super().__init__()
        width, self.taps = c["embedder"]["width"], c["embedder"].get("convolution", 0)
        self.embedding = nn.Embedding(c["vocabulary"], width)
        if self.taps:
            self.convolution = nn.ModuleDict({"matrices": nn.Linear(self.taps * width, width, bias=False)})
        projected = c["embedder"]["kind"] == "projection"
        outputs = c["block_decoder"]["width"]
        self.projection = nn.Linear(c["block_length"] * width, outputs) if projected else nn.Identity()

    def forward(self, blocks: Tensor, valid: Tensor) -> Tensor:
        """[B, N, L] -> [B, N, D]. Padding is embedded as the token it holds, but is 0 to the convolution."""
        rows = self.embedding(blocks)
        if self.taps:
            known = (rows * valid[..., None]).flatten(1, 2)
            windows = windows_before(known, self.taps, step=1, first=1).flatten(2)  # oldest first
            rows = rows + self.convolution["matrices"](windows).view(rows.shape)
        return self.projection(rows.flatten(2))


class MemoryAttention(nn.Module):
    """Attention of a block's positions to one memory of each block before, which is key and value of every head."""

    def __init__(self, c: Json) -> None:
        super().__init__()
        decoder, stack = c["token_decoder"], c["token_decoder"]["stack"]
        width, self.width = stack["width"], decoder["memory"]
        self.compress = nn.Linear((c["block_length"] + 1) * width, self.width, bias=False)
        self.compress_norm = nn.RMSNorm(self.width, stack["norm_eps"])
        self.norm = norm_of(stack)(width, stack["norm_eps"])
        self.query = nn.Linear(width, stack["heads"] * self.width, bias=False)
        self.output = nn.Linear(stack["heads"] * self.width, width, bias=False)

    def forward(self, x: Tensor, windows: Tensor, allowed: Tensor) -> Tensor:
        """[B, N, L, width] -> the same; ``windows`` [B, blocks, (L + 1) width], ``allowed`` [B, N, blocks]."""
        memories, some = self.compress_norm(self.compress(windows)), allowed.any(-1)
        query = self.query(self.norm(x)).unflatten(-1, (-1, self.width)).flatten(2, 3).transpose(1, 2)
        bias = torch.zeros(1, device=x.device).masked_fill(~(allowed | ~some[..., None])[:, None], -math.inf)
        attended = attend(query, memories[:, None], memories[:, None], bias, self.width**-0.5)
        return x + self.output((attended * some[..., None]).unflatten(-1, (x.shape[2], -1)))


class TokenDecoder(nn.Module):
    """The tokens of block i from the context of block i - 1, which a matrix expands to slots.

    Slots precede the tokens (prefix), are added to them (summation), or are attended to by a T5 decoder.
    """

    def __init__(self, c: Json) -> None:
        super().__init__()
        decoder, width = c["token_decoder"], c["token_decoder"]["stack"]["width"]
        self.kind, self.width, self.scale = decoder["kind"], width, 1.0
        self.slots = decoder["prefix_length"] or c["block_length"]
        self.local, self.contexts = decoder.get("local", 0), decoder.get("contexts", 1)
        self.carried = c["block_length"] - 1 if decoder.get("carry", False) else 0
        self.local = 1 if decoder.get("carry", False) else self.local
        self.embedding = nn.Embedding(c["vocabulary"], width)
        self.expansion = nn.Linear(c["block_decoder"]["width"], self.slots * width)
        tied = decoder.get("tied", False) or self.kind == "cross_attention"
        self.head = None if tied else nn.Linear(width, c["vocabulary"], bias=False)
        mix = decoder.get("mix", False)
        self.mixing = nn.Linear(self.local * width, self.slots * width, bias=False) if mix else None
        count = decoder.get("memory_layers", 1) if decoder.get("memory", 0) else 0
        self.memory_attention = nn.ModuleList(MemoryAttention(c) for _ in range(count))
        if self.kind == "cross_attention":
            self.decoder, self.scale = T5Decoder(decoder["stack"]), width**-0.5
        else:
            self.stack = Stack(decoder["stack"])

    def forward(self, context: Tensor, blocks: Tensor, valid: Tensor) -> Tensor:
        """[B, N - 1, L, width] of all blocks but the first; ``context`` [B, N - 1, D], ``blocks`` [B, N, L]."""
        slots = self.expansion(context).unflatten(-1, (self.slots, self.width))
        if self.kind == "prefix":
            x, keys = self.prefixed(slots, blocks, valid)
        else:
            x = self.embedding(F.pad(blocks[:, 1:, :-1], (1, 0), value=START_TOKENS[self.kind]))
            keys = F.pad(valid[:, 1:, :-1], (1, 0), value=True)
        if self.kind == "summation":
            x = x + slots
        x, keys, carried = x.flatten(0, 1), keys.flatten(0, 1), self.carried_keys(valid) if self.carried else None
        if self.kind == "cross_attention":
            hidden = self.decoder(x, keys, slots.flatten(0, 1)) * self.scale
        else:
            hidden = self.stack(
                x, keys, carried, self.looking_up(blocks, valid) if len(self.memory_attention) else None
            )
        return hidden[:, -blocks.shape[2] :].unflatten(0, context.shape[:2])

    def looking_up(self, blocks: Tensor, valid: Tensor) -> Between:
        """Before some layers from the middle on, the positions that predict a token look at all earlier blocks."""
        batch, count, length = blocks.shape
        known = (self.embedding(blocks[:, :-1]) * valid[:, :-1, :, None]).flatten(1, 2)
        windows = windows_before(known, length + 1, length, 1).flatten(-2)
        place = torch.arange(count, device=blocks.device)
        allowed = (place[1:, None] > place[:-1]) & valid.any(-1)[:, None, :-1]
        middle = len(self.stack.layers) // 2

        def between(index: int, x: Tensor) -> Tensor:
            if not middle <= index < middle + len(self.memory_attention):
                return x
            attention = self.memory_attention[index - middle]
            before, predicting = x.split([x.shape[1] - length, length], dim=1)
            looked = attention(predicting.unflatten(0, (batch, -1)), windows, allowed)
            return torch.cat([before, looked.flatten(0, 1)], dim=1)

        return between

    def carried_keys(self, valid: Tensor) -> Tensor:
        """Which of the block before's last tokens may be seen, [B, N - 1, carried]; none if its context is padding."""
        known = valid[:, 1:-1, -1 - self.carried : -1] & valid[:, :-2].any(-1, keepdim=True)
        return F.pad(known, (0, 0, 1, 0))

    def prefixed(self, slots: Tensor, blocks: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [B, N - 1, positions, width] and which of them may be seen.

        In order: the last ``local`` tokens before the block, older contexts' slots, its own slots, its tokens but the
        last. What does not exist or is padding keeps its position. Mixed tokens have none: they add to the own slots.
        """
        tokens, seen = self.embedding(blocks[:, 1:, :-1]), valid[:, 1:, :-1]
        own, inputs, keys = slots, [], []
        if self.local:
            before = self.embedding(windows_before(blocks[:, :-1].flatten(1), self.local, blocks.shape[2], 1))
            there = windows_before(valid[:, :-1].flatten(1), self.local, blocks.shape[2], 1)
            if self.mixing is None:
                inputs, keys = [before], [there]
            else:
                own = slots + self.mixing((before * there[..., None]).flatten(-2)).unflatten(-1, slots.shape[-2:])
        if self.contexts > 1:
            inputs.append(windows_before(slots[:, :-1], self.contexts - 1, 1, 0).flatten(2, 3))
            there = windows_before(valid[:, :-2].any(-1), self.contexts - 1, 1, 0)
            keys.append(there.repeat_interleave(self.slots, dim=2))
        keys += [seen.new_ones(*seen.shape[:2], self.slots), seen]
        return torch.cat([*inputs, own, tokens], dim=2), torch.cat(keys, dim=2)


class BlockscaleForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """What both families share: the alignment of blocks, padding, the loss, generation."""

    config_class = BlockscaleConfig
    main_input_name = "input_ids"

    def hidden(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """[B, T - L, D]: row i is what predicts position L + i of ``tokens`` [B, T]; L is 1 for a vanilla model."""
        raise NotImplementedError

    def head_weight(self) -> Tensor:
        """[V, D]."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        prompt_length: int | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutput:
        """Logits [B, T, V], row i for position i + 1; those that are padding's mean nothing.

        Without ``prompt_length`` every document begins with its first real token, wherever padding stands, and each of
        its tokens but the first is predicted: no other label has a part in the loss. With it blocks are aligned to the
        end of so many positions, as :meth:`generate` wants them; positions of the first block then have logits 0.
        """
        valid = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        valid, length = valid.bool(), self.config.model.get("block_length", 1)
        if prompt_length is not None:
            hidden = self.aligned(input_ids, valid, -prompt_length % length)
        else:
            hidden = self.of_documents(input_ids, valid, length)
        logits = F.linear(hidden[:, -logits_to_keep:], self.head_weight())
        loss = None
        if labels is not None:
            known = valid[:, :-1] & valid[:, 1:]  # nothing predicts a document's first token, nor what pads it
            targets = labels[:, 1:].masked_fill(~known, IGNORED)
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)
        return CausalLMOutput(loss=loss, logits=logits)

    def aligned(self, tokens: Tensor, valid: Tensor, left: int) -> Tensor:
        """[B, T, D], row i for position i + 1, with ``left`` pads in front; 0 for what the first block holds."""
        # One more position: what follows the last token is predicted too.
        hidden = self.hidden(F.pad(tokens, (left, 1)), F.pad(valid, (left, 1)))
        return F.pad(hidden, (0, 0, tokens.shape[1] - hidden.shape[1], 0))

    def of_documents(self, tokens: Tensor, valid: Tensor, length: int) -> Tensor:
        """[B, T, D], with L - 1 pads before each row's first real token: position L is then the second token.

        A model that was trained without padding gets them to predict positions 1 to L - 1 alone.
        """
        places = torch.arange(tokens.shape[1], device=tokens.device)
        shift = valid.int().argmax(-1, keepdim=True)  # pads before the first real token, which go to the row's end
        order = (places + shift) % tokens.shape[1]
        tokens, valid = tokens.gather(1, order), valid.gather(1, order)
        hidden = self.aligned(tokens, valid, length - 1)
        if not self.config.padding:
            hidden = torch.cat([hidden[:, : length - 1], self.aligned(tokens, valid, 0)[:, length - 1 :]], dim=1)
        back = (places - shift) % tokens.shape[1]
        return hidden.gather(1, back[..., None].expand_as(hidden))

    def generate(self, inputs: Tensor | None = None, *positional: Any, **named: Any) -> Any:
        """As :meth:`GenerationMixin.generate`: the prompts, padded on the left, end where a block does."""
        prompts = named.get("input_ids") if inputs is None else inputs
        named |= {"use_cache": False, "prompt_length": 1 if prompts is None else prompts.shape[1]}
        return super().generate(inputs, *positional, **named)  # type: ignore[misc]

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> Json:  # type: ignore[override]
        """All tokens again, as there is no cache. Only by this name of ``kwargs`` may they be :meth:`forward`'s."""
        names = ("attention_mask", "prompt_length", "logits_to_keep")
        return {"input_ids": input_ids, **{name: kwargs[name] for name in names if name in kwargs}}


class BlockTransformerForCausalLM(BlockscaleForCausalLM):
    """Embedder, block decoder, token decoder: the context of block i - 1 predicts the tokens of block i."""

    def __init__(self, config: BlockscaleConfig) -> None:
        super().__init__(config)
        c = config.model
        width = c["block_decoder"]["width"]
        encoder = c["embedder"]["kind"] in ("roberta", "cls")
        self.embedder = EncoderEmbedder(c) if encoder else TableEmbedder(c)
        overlap = c["embedder"].get("overlap", False)
        self.overlap = nn.ModuleDict({"matrix": nn.Linear(2 * width, width, bias=False)}) if overlap else None
        self.block_decoder = Stack(c["block_decoder"])
        self.token_decoder = TokenDecoder(c)
        self.post_init()  # type: ignore[no-untyped-call]

    def hidden(self, tokens: Tensor, valid: Tensor) -> Tensor:
        length = self.config.model["block_length"]
        predicted = tokens.shape[1] - length
        if predicted <= 0:
            return self.token_decoder.embedding.weight.new_zeros(len(tokens), 0, self.token_decoder.width)
        blocks, valid = (F.pad(x, (0, -x.shape[1] % length)).unflatten(1, (-1, length)) for x in (tokens, valid))
        context = self.block_decoder(self.embed(blocks[:, :-1], valid[:, :-1]), valid[:, :-1].any(-1))
        return self.token_decoder(context, blocks, valid).flatten(1, 2)[:, :predicted]

    def embed(self, blocks: Tensor, valid: Tensor) -> Tensor:
        """[B, N, L] -> [B, N, D]; ``overlap`` adds a matrix on the block before's embedding and a block's own."""
        embedded = self.embedder(blocks, valid)
        if self.overlap is None:
            return embedded
        known = embedded * valid.any(-1, keepdim=True)
        before = F.pad(known[:, :-1], (0, 0, 1, 0))
        return embedded + self.overlap["matrix"](torch.cat([before, embedded], dim=-1))

    def head_weight(self) -> Tensor:
        decoder = self.token_decoder
        return decoder.embedding.weight if decoder.head is None else decoder.head.weight


class VanillaTransformerForCausalLM(BlockscaleForCausalLM):
    """A decoder over tokens, such as one with windows or, of GPT-NeoX's layers, with grouped queries."""

    def __init__(self, config: BlockscaleConfig) -> None:
        super().__init__(config)
        c = config.model
        self.embedding = nn.Embedding(c["vocabulary"], c["stack"]["width"])
        self.stack = Stack(c["stack"])
        self.head = None if c.get("tied", False) else nn.Linear(c["stack"]["width"], c["vocabulary"], bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def hidden(self, tokens: Tensor, valid: Tensor) -> Tensor:
        return self.stack(self.embedding(tokens[:, :-1]), valid[:, :-1])

    def head_weight(self) -> Tensor:
        return self.embedding.weight if self.head is None else self.head.weight
