"""The models once more, slow and obvious: one sequence, one position and one head at a time, from formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.config import (
    BlockConfig,
    ClsConfig,
    EncoderConfig,
    LayersConfig,
    LlamaConfig,
    ModelConfig,
    NeoxDecoderConfig,
    PrefixConfig,
    RobertaConfig,
    StackConfig,
    T5Config,
    VanillaConfig,
)

Weights = dict[str, Tensor]
Between = Callable[[int, Tensor], Tensor]
Carried = list[tuple[Tensor, Tensor, list[bool]]]
"""A layer's keys and values of positions before the first, not rotated, and which of them may be seen."""


def logits(config: ModelConfig, weights: Weights, tokens: Tensor, valid: Tensor) -> Tensor:
    """[T - first, V] of one sequence [T]."""
    if isinstance(config, VanillaConfig):
        x = neox(weights["embedding.weight"][tokens[:-1]], weights, "stack", config.stack, valid[:-1])
        return x @ weights["embedding.weight" if config.tied else "head.weight"].T
    assert isinstance(config, BlockConfig)
    return block_logits(config, weights, tokens, valid)


def block_logits(config: BlockConfig, weights: Weights, tokens: Tensor, valid: Tensor) -> Tensor:
    length = config.block_length
    blocks, blocks_valid = list(tokens.split(length)), list(valid.split(length))
    whole = [block for block in blocks if len(block) == length]
    rows = convolved(config, weights, tokens, valid)
    embeddings = [embed(config, weights, block, blocks_valid[i], rows[i]) for i, block in enumerate(whole)]
    embeddings = torch.stack([overlapping(weights, embeddings, blocks_valid, i) for i in range(len(whole))])
    block_valid = torch.tensor([bool(blocks_valid[i].any()) for i in range(len(whole))])
    contexts = neox(embeddings, weights, "block_decoder", config.block_decoder, block_valid)
    logits_of_blocks, carried = [], []
    for i in range(1, len(blocks)):
        past = tokens[: i * length], valid[: i * length]
        older = [
            contexts[j] if j >= 0 and block_valid[j] else None for j in range(i - config.token_decoder.seen, i - 1)
        ]
        seen = [*older, contexts[i - 1]]
        logits_of_blocks.append(decode(config, weights, seen, blocks[i], blocks_valid[i], past, carried))
        if not block_valid[i - 1]:
            carried = [(key, value, [False] * len(known)) for key, value, known in carried]
    return torch.cat(logits_of_blocks)


def convolved(config: BlockConfig, weights: Weights, tokens: Tensor, valid: Tensor) -> list[list[Tensor]]:
    """The table's rows of every block, each with those of the tokens before it; none for an encoder."""
    length, size = config.block_length, getattr(config.embedder, "convolution", 0)
    if isinstance(config.embedder, RobertaConfig):
        return [[] for _ in tokens]
    plain = [weights["embedder.embedding.weight"][token] for token in tokens]
    rows = list(plain)
    for place in range(len(plain)):
        for back in range(size):
            if place >= back and valid[place - back]:
                taps = weights["embedder.convolution.matrices.weight"].chunk(size, dim=1)
                rows[place] = rows[place] + taps[size - 1 - back] @ plain[place - back]
    return [rows[begin : begin + length] for begin in range(0, len(rows), length)]


def overlapping(weights: Weights, embeddings: list[Tensor], valid: list[Tensor], i: int) -> Tensor:
    """Block i's embedding with that of the block before, if there is such a matrix."""
    matrix = weights.get("overlap.matrix.weight")
    if matrix is None:
        return embeddings[i]
    on_before, on_own = matrix.chunk(2, dim=1)
    joined = embeddings[i] + on_own @ embeddings[i]
    return joined + on_before @ embeddings[i - 1] if i and valid[i - 1].any() else joined


def embed(config: BlockConfig, weights: Weights, block: Tensor, valid: Tensor, rows: list[Tensor]) -> Tensor:
    """[D] of one block [L], of the table's ``rows`` unless it is an encoder."""
    embedder = config.embedder
    if isinstance(embedder, RobertaConfig):
        count = embedder.cls_tokens if isinstance(embedder, ClsConfig) else 0
        tokens = torch.cat([torch.zeros(count, dtype=torch.long), block])
        encoded = roberta(tokens, torch.cat([torch.ones(count, dtype=torch.bool), valid]), weights, embedder)
        rows = list(encoded[:count] if count else encoded)
    joined = torch.cat(rows)
    return joined if embedder.kind == "lookup" else linear(joined, weights, "embedder.projection")


def decode(
    config: BlockConfig,
    weights: Weights,
    contexts: list[Tensor | None],
    block: Tensor,
    valid: Tensor,
    past: tuple[Tensor, Tensor],
    carried: Carried,
) -> Tensor:
    """[tokens, V] of one block [tokens], which is shorter than L at a sequence's end.

    ``contexts``: the last is the block's; ``None`` for one that there is not. ``past``: tokens and validity.
    ``carried``: of the block before; this block's afterwards.
    """
    decoder, count = config.token_decoder, len(block)
    table = weights["token_decoder.embedding.weight"]
    context = contexts[-1]
    assert context is not None
    slots = linear(context, weights, "token_decoder.expansion").view(config.slots, -1)
    if isinstance(decoder, PrefixConfig):
        before, known = local(decoder, table, past)
        if decoder.mix:
            mixing = weights["token_decoder.mixing.weight"].view(config.slots, decoder.stack.width, decoder.local, -1)
            for place, embedding in enumerate(before):
                slots = slots + known[place] * (mixing[:, :, place] @ embedding)
            before, known = before[:0], known[:0]
        for older in contexts[:-1]:
            there = older if older is not None else 0 * context
            before = torch.cat([before, linear(there, weights, "token_decoder.expansion").view(config.slots, -1)])
            known = torch.cat([known, torch.tensor([older is not None] * config.slots)])
        x = torch.cat([before, slots, table[block[:-1]]])
        keys = torch.cat([known, torch.ones(config.slots, dtype=torch.bool), valid[:-1]])
        x = neox(
            x,
            weights,
            "token_decoder.stack",
            decoder.stack,
            keys,
            carried,
            config.block_length - 1 if decoder.carry else 0,
            looking_up(config, decoder, weights, past, len(before) + config.slots - 1) if decoder.memory else None,
        )
        x = x[len(before) + config.slots - 1 :]
        return x @ (table if decoder.tied else weights["token_decoder.head.weight"]).T
    keys = torch.cat([torch.ones(1, dtype=torch.bool), valid[:-1]])
    if isinstance(decoder, NeoxDecoderConfig):
        x = torch.cat([table[:1], table[block[:-1]]]) + slots[:count]
        x = neox(x, weights, "token_decoder.stack", decoder.stack, keys)
        return x @ (table if decoder.tied else weights["token_decoder.head.weight"]).T
    assert isinstance(decoder.stack, T5Config)
    x = t5(torch.cat([table[1:2], table[block[:-1]]]), slots, keys, weights, decoder.stack)
    return x / math.sqrt(decoder.stack.width) @ table.T


def local(decoder: PrefixConfig, table: Tensor, past: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Embeddings [r, width] of the last r tokens, 0 for those before the first, and which of them may be seen [r]."""
    tokens, valid = past
    rows, known = [], []
    for place in range(len(tokens) - (1 if decoder.carry else decoder.local), len(tokens)):
        rows.append(table[tokens[place]] if place >= 0 else 0 * table[0])
        known.append(place >= 0 and bool(valid[place]))
    return torch.stack(rows) if rows else table[:0], torch.tensor(known, dtype=torch.bool)


def looking_up(
    config: BlockConfig, decoder: PrefixConfig, weights: Weights, past: tuple[Tensor, Tensor], first: int
) -> Between:
    """What happens before a layer: positions from ``first`` on attend to a memory of each block before."""
    (tokens, valid), length, width = past, config.block_length, decoder.memory
    table, middle = weights["token_decoder.embedding.weight"], decoder.stack.layers // 2

    def memories(name: str) -> list[Tensor]:
        made = []
        for begin in range(0, len(tokens), length):
            places = range(begin - 1, begin + length)
            parts = [table[tokens[place]] if place >= 0 and valid[place] else 0 * table[0] for place in places]
            if valid[begin : begin + length].any():
                memory = weights[f"{name}.compress.weight"] @ torch.cat(parts)
                made.append(rms(memory, weights, f"{name}.compress_norm", decoder.stack))
        return made

    def between(layer: int, x: Tensor) -> Tensor:
        name = f"token_decoder.memory_attention.{layer - middle}"
        seen = memories(name) if middle <= layer < middle + decoder.memory_layers else []
        if not seen:
            return x
        rows = list(x[:first])
        for row in x[first:]:
            queries = weights[f"{name}.query.weight"] @ norm(row, weights, f"{name}.norm", decoder.stack)
            found = []
            for query in queries.view(decoder.stack.heads, width):
                shares = torch.stack([query @ memory / math.sqrt(width) for memory in seen]).softmax(0)
                found.append(sum(share * memory for share, memory in zip(shares, seen, strict=True)))
            rows.append(row + weights[f"{name}.output.weight"] @ torch.cat(found))
        return torch.stack(rows)

    return between


def neox(
    x: Tensor,
    weights: Weights,
    name: str,
    config: StackConfig,
    valid: Tensor,
    carried: Carried | None = None,
    count: int = 0,
    between: Between | None = None,
) -> Tensor:
    """[T, D] -> [T, D]. Padding is attended to by nobody and attends to nothing.

    Every position sees ``carried`` too, which becomes that of the last ``count`` positions.
    """
    before, kept = list(carried or []), []
    for layer in range(config.layers):
        here = f"{name}.layers.{layer}"
        x = between(layer, x) if between else x
        query, key, value = heads(norm(x, weights, f"{here}.attention_norm", config), weights, here, config)
        if getattr(config, "query_key_norm", False):
            query, key = (
                rms(query, weights, f"{here}.query_norm", config),
                rms(key, weights, f"{here}.key_norm", config),
            )
        kept.append((key[-count:], value[-count:], [bool(known) for known in valid[-count:]]))
        query = torch.stack([rotated(query[i], i, config) for i in range(len(x))])
        key = torch.stack([rotated(key[i], i, config) for i in range(len(x))])
        old_key, old_value, known = before[layer] if before else (key[:0], value[:0], [])
        old = len(known)
        old_key = torch.stack([rotated(old_key[i], i - old, config) for i in range(old)]) if old else old_key
        key, value = torch.cat([old_key, key]), torch.cat([old_value, value])
        attended = []
        for i in range(len(x)):
            window = config.window or len(x)
            if config.global_every and (layer + 1) % config.global_every == 0:
                window = len(x)
            seen = [old + j for j in range(i + 1) if valid[i] and valid[j] and i - j < window]
            seen = [j for j in range(old) if valid[i] and known[j]] + seen
            attended.append(weighed(query[i], key, value, seen, config.head_width**-0.5))
        after = x + linear(torch.stack(attended), weights, f"{here}.attention_output")
        normed = norm(after if isinstance(config, LlamaConfig) else x, weights, f"{here}.feed_forward_norm", config)
        inner = activated(linear(normed, weights, f"{here}.feed_forward_in"), config)
        x = after + linear(inner, weights, f"{here}.feed_forward_out")
    if carried is not None and count:
        carried[:] = kept
    return norm(x, weights, f"{name}.norm", config)


def activated(inner: Tensor, config: StackConfig) -> Tensor:
    if isinstance(config, LlamaConfig):
        gate, state = inner[:, : config.feed_forward], inner[:, config.feed_forward :]
        return gate / (1 + torch.exp(-gate)) * state
    return F.gelu(inner)


def roberta(tokens: Tensor, valid: Tensor, weights: Weights, config: RobertaConfig) -> Tensor:
    stack, name = config.stack, "embedder.encoder"
    padding, position, rows = config.padding_token, 1, []
    for token in tokens:
        position += token != padding
        at = position if token != padding else 1
        rows.append(weights[f"{name}.embedding.weight"][token] + weights[f"{name}.positions.weight"][at])
    x = norm(torch.stack(rows) + weights[f"{name}.token_type.weight"][0], weights, f"{name}.norm", stack)
    for layer in range(stack.layers):
        here = f"{name}.layers.{layer}"
        query, key, value = heads(x, weights, here, stack)
        seen = [j for j in range(len(x)) if valid[j]]
        if seen:
            attended = [weighed(query[i], key, value, seen, stack.head_width**-0.5) for i in range(len(x))]
        else:
            every = list(range(len(x)))
            lowest = torch.full((len(x), stack.heads), torch.finfo(x.dtype).min, dtype=x.dtype)
            attended = [weighed(query[i], key, value, every, stack.head_width**-0.5, lowest) for i in every]
        x = x + linear(torch.stack(attended), weights, f"{here}.attention_output")
        x = norm(x, weights, f"{here}.attention_norm", stack)
        inner = F.gelu(linear(x, weights, f"{here}.feed_forward_in"))
        x = norm(x + linear(inner, weights, f"{here}.feed_forward_out"), weights, f"{here}.feed_forward_norm", stack)
    return x


def t5(x: Tensor, slots: Tensor, valid: Tensor, weights: Weights, config: T5Config) -> Tensor:
    """[tokens, D] -> [tokens, D]. Padding still attends, as in T5."""
    name = "token_decoder.decoder"
    for layer in range(config.layers):
        here = f"{name}.layers.{layer}"
        query, key, value = heads(rms(x, weights, f"{here}.attention_norm", config), weights, here, config)
        attended = []
        for i in range(len(x)):
            seen = [j for j in range(i + 1) if valid[j]]
            bias = torch.stack([weights[f"{name}.relative_bias.weight"][t5_bucket(i - j)] for j in seen])
            attended.append(weighed(query[i], key, value, seen, 1.0, bias))
        x = x + torch.stack(attended) @ weights[f"{here}.attention_output.weight"].T
        query = rms(x, weights, f"{here}.cross_norm", config) @ weights[f"{here}.cross_query.weight"].T
        query = query.view(len(x), config.heads, -1)
        packed = (slots @ weights[f"{here}.cross_keys_values.weight"].T).view(len(slots), 2, config.kv_heads, -1)
        every = list(range(len(slots)))
        crossed = [weighed(query[i], packed[:, 0], packed[:, 1], every, 1.0) for i in range(len(x))]
        x = x + torch.stack(crossed) @ weights[f"{here}.cross_output.weight"].T
        inner = rms(x, weights, f"{here}.feed_forward_norm", config) @ weights[f"{here}.feed_forward_in.weight"].T
        x = x + inner.clamp(min=0) @ weights[f"{here}.feed_forward_out.weight"].T
    return rms(x, weights, f"{name}.norm", config)


def t5_bucket(distance: int) -> int:
    if distance < 16:
        return distance
    return min(16 + int(16 * math.log(distance / 16) / math.log(128 / 16)), 31)


def heads(x: Tensor, weights: Weights, layer: str, config: LayersConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Query [T, heads, head width], key and value [T, kv_heads, head width]."""
    packed = linear(x, weights, f"{layer}.query_key_value").view(len(x), -1, config.head_width)
    keys_end = config.heads + config.kv_heads
    return packed[:, : config.heads], packed[:, config.heads : keys_end], packed[:, keys_end:]


def weighed(
    query: Tensor, key: Tensor, value: Tensor, seen: list[int], scale: float, bias: Tensor | None = None
) -> Tensor:
    """Attention output of one query [heads, head width] over the positions ``seen``; 0 where there are none."""
    if not seen:
        return 0 * query.flatten()
    group = query.shape[0] // key.shape[1]
    outputs = []
    for head in range(query.shape[0]):
        scores = key[seen, head // group] @ query[head] * scale
        if bias is not None:
            scores = scores + bias[:, head]
        outputs.append(scores.softmax(0) @ value[seen, head // group])
    return torch.cat(outputs)


def rotated(x: Tensor, position: int, config: StackConfig) -> Tensor:
    """One position's heads [heads, head width]: dimension d and d + half turn by position * base ** (-d / half)."""
    half = config.rotary_width // 2
    if not half:
        return x
    turn = torch.tensor([position * config.rotary_base ** (-d / half) for d in range(half)], dtype=x.dtype)
    turned = torch.complex(x[:, :half], x[:, half : 2 * half]) * torch.polar(torch.ones_like(turn), turn)
    return torch.cat([turned.real, turned.imag, x[:, 2 * half :]], dim=1)


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    product = x @ weights[f"{name}.weight"].T
    return product + weights[f"{name}.bias"] if f"{name}.bias" in weights else product


def norm(x: Tensor, weights: Weights, name: str, config: StackConfig | EncoderConfig) -> Tensor:
    if isinstance(config, LlamaConfig):
        return rms(x, weights, name, config)
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + config.norm_eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def rms(x: Tensor, weights: Weights, name: str, config: T5Config | LlamaConfig) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + config.norm_eps).sqrt() * weights[f"{name}.weight"]
