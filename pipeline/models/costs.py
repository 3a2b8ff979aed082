"""What a model costs, from its configuration alone: parameters, FLOPs, memory. No torch here.

FLOPs are those of matrix products, two a multiply-add, attention included; norms, activations and look-ups are left
out. Shapes: T tokens, N blocks, L block length, S = slots + L - 1 positions of the token decoder, V vocabulary.
Training counts what is computed, as torch's FlopCounterMode does: attention over whole T x T squares, backward
twice the forward pass. Prefill and decode count what is needed: only keys that a query attends to, one row of logits.
"""

from __future__ import annotations

from pipeline.models.config import ENCODER_POSITIONS, BlockConfig, ModelConfig, StackConfig, VanillaConfig

GROUPS = ("embedding", "embedder", "block_decoder", "token_decoder", "head")
EMBEDDING_GROUPS = ("embedding", "head")
T5_BUCKETS = 32


def parameters(config: ModelConfig) -> dict[str, int]:
    """Parameters by group; they sum up to the model's.

    ``embedding``: the input tables of the vocabulary; ``head``: the output table (0 where it is tied to an input
    table); ``embedder``: encoder and projection; a vanilla model's layers are its ``token_decoder``.
    """
    if isinstance(config, VanillaConfig):
        table = config.vocabulary * config.stack.width
        return _groups(embedding=table, token_decoder=_neox_parameters(config.stack), head=table)
    decoder = config.token_decoder
    width, cross = decoder.stack.width, decoder.kind == "cross_attention"
    expansion = (config.block_decoder.width + 1) * config.slots * width
    body = _t5_parameters(decoder.stack) if cross else _neox_parameters(decoder.stack)
    return _groups(
        embedding=config.vocabulary * (config.embedder.width + width),
        embedder=_embedder_parameters(config),
        block_decoder=_neox_parameters(config.block_decoder),
        token_decoder=expansion + body,
        head=0 if cross else config.vocabulary * width,
    )


def total_parameters(config: ModelConfig) -> int:
    """All parameters, tables of the vocabulary included."""
    return sum(parameters(config).values())


def non_embedding_parameters(config: ModelConfig) -> int:
    """Parameters without the vocabulary's tables: the size that the paper names its models by."""
    return sum(count for group, count in parameters(config).items() if group not in EMBEDDING_GROUPS)


def forward_flops(config: ModelConfig, length: int) -> float:
    """One training pass forward over a sequence of ``length`` tokens, logits of all predicted positions included."""
    if isinstance(config, VanillaConfig):
        seen = length - 1
        stack = _matmuls(config.stack) * seen + _attention(config.stack, seen * seen)
        return stack + 2 * config.stack.width * config.vocabulary * seen
    blocks = -(-length // config.block_length) - 1
    over_blocks = _matmuls(config.block_decoder) * blocks + _attention(config.block_decoder, blocks * blocks)
    head = 2 * config.token_decoder.stack.width * config.vocabulary * (length - config.block_length)
    return over_blocks + blocks * (_embedder_flops(config) + _token_decoder_flops(config, causal=False)) + head


def training_flops_per_token(config: ModelConfig) -> float:
    """Forward and backward, a token of a sequence of the context length."""
    return 3 * forward_flops(config, config.context_length) / config.context_length


def causal_training_flops_per_token(config: ModelConfig) -> float:
    """:func:`training_flops_per_token` with attention over the pairs of query and key that a causal mask leaves."""
    if isinstance(config, VanillaConfig):
        stack, length = config.stack, config.context_length - 1
    else:
        stack, length = config.block_decoder, -(-config.context_length // config.block_length) - 1
    spared = _attention(stack, length * length - _causal_pairs(stack, length))
    if isinstance(config, BlockConfig):
        spared += length * (_token_decoder_flops(config, causal=False) - _token_decoder_flops(config, causal=True))
    return training_flops_per_token(config) - 3 * spared / config.context_length


def prefill_flops(config: ModelConfig, prompt: int) -> float:
    """FLOPs until the first new token of a prompt of that many tokens is known."""
    if isinstance(config, VanillaConfig):
        stack = config.stack
        return _matmuls(stack) * prompt + _attention(stack, _causal_pairs(stack, prompt)) + _head_flops(config)
    blocks = -(-prompt // config.block_length)
    stack = config.block_decoder
    over_blocks = _matmuls(stack) * blocks + _attention(stack, _causal_pairs(stack, blocks))
    first_token = _token_decoder_flops(config, causal=True) / config.block_length + _head_flops(config)
    return over_blocks + blocks * _embedder_flops(config) + first_token


def decode_flops(config: ModelConfig, position: int) -> float:
    """FLOPs of a new token after ``position`` others; a block transformer's mean over the tokens of a block."""
    if isinstance(config, VanillaConfig):
        stack = config.stack
        return _matmuls(stack) + _attention(stack, _keys(stack, position)) + _head_flops(config)
    stack, length = config.block_decoder, config.block_length
    step = _matmuls(stack) + _attention(stack, _keys(stack, position / length)) + _embedder_flops(config)
    return (step + _token_decoder_flops(config, causal=True)) / length + _head_flops(config)


def layer_matrices(config: ModelConfig) -> int:
    """Entries of the matrices of all layers, which an optimizer may treat apart from the other parameters."""
    if isinstance(config, VanillaConfig):
        return config.stack.layers * _layer_weights(config.stack)
    stacks = [config.block_decoder, config.token_decoder.stack, config.embedder.stack]
    count = sum(stack.layers * _layer_weights(stack) for stack in stacks if stack is not None)
    if config.token_decoder.kind == "cross_attention":
        count += config.token_decoder.stack.layers * sum(_cross_weights(config.token_decoder.stack))
    return count


def training_memory(config: ModelConfig, matrix_moments: int = 2, other_moments: int = 2) -> int:
    """Bytes of fp32 weights, gradients and optimizer state, and one sequence's activations with a fused loss.

    The optimizer keeps so many moments of the layers' matrices and of the other parameters.
    """
    matrices, total = layer_matrices(config), total_parameters(config)
    state = 4 * ((2 + matrix_moments) * matrices + (2 + other_moments) * (total - matrices))
    return state + int(config.context_length * activation_bytes_per_token(config))


def weight_bytes(config: ModelConfig, element: int = 2) -> int:
    """Bytes of all parameters, ``element`` bytes each."""
    return total_parameters(config) * element


def decode_weight_bytes(config: ModelConfig, element: int = 2) -> float:
    """Weights that a decode step reads, once for the whole batch; a block transformer's mean over a block's tokens."""
    count = parameters(config)
    over_blocks = count["embedder"] + count["block_decoder"]
    head = config.vocabulary * _last_stack(config).width
    expansion = 0
    if isinstance(config, BlockConfig):
        expansion = config.block_decoder.width * config.slots * config.token_decoder.stack.width
        over_blocks += expansion
    return element * (over_blocks / config.first + count["token_decoder"] - expansion + head)


def kv_bytes(config: ModelConfig, length: int, element: int = 2) -> int:
    """Keys and values kept for a sequence of ``length`` tokens, the token decoder's own few included."""
    if isinstance(config, VanillaConfig):
        return _kv(config.stack, element) * int(_keys(config.stack, length))
    blocks = -(-length // config.block_length)
    return _kv(config.block_decoder, element) * blocks + _local_kv(config, element)


def kv_bytes_per_token(config: ModelConfig, element: int = 2) -> float:
    """Keys and values that a further token of a sequence adds."""
    if isinstance(config, VanillaConfig):
        return _kv(config.stack, element)
    return _kv(config.block_decoder, element) / config.block_length


def kv_bytes_read(config: ModelConfig, position: int, element: int = 2) -> float:
    """Keys and values that decoding a token after ``position`` others reads; a block transformer's mean over a block.

    The token decoder's cache lasts for one block and is read once for every token of it.
    """
    if isinstance(config, VanillaConfig):
        return _kv(config.stack, element) * _keys(config.stack, position)
    length = config.block_length
    over_blocks = _kv(config.block_decoder, element) * (position / length) / length
    return over_blocks + _local_kv(config, element)


def activation_bytes_per_token(config: ModelConfig, element: int = 2) -> float:
    """What a training pass keeps for the backward pass, a token; an estimate, without the logits.

    A layer keeps its two norms' inputs and outputs, query, key and value (before and after rotation), attention's
    output, and the feed-forward's inner state before and after the activation. A fused loss adds
    :func:`logit_bytes_per_token` for as many tokens as it takes at a time.
    """
    if isinstance(config, VanillaConfig):
        return element * _kept(config.stack)
    length, decoder = config.block_length, config.token_decoder
    positions = config.slots + length - 1 if decoder.kind == "prefix" else length
    kept = _kept(config.block_decoder) + positions * _kept(decoder.stack)
    if decoder.kind == "cross_attention":
        stack = decoder.stack
        cross = 4 * stack.width * length + 2 * stack.kv_heads * stack.head_width * length
        kept += stack.layers * cross
    if config.embedder.stack is not None:
        kept += (config.embedder.cls_tokens + length) * _kept(config.embedder.stack)
    return element * kept / length


def logit_bytes_per_token(config: ModelConfig, element: int = 2) -> int:
    """Logits of one token, their fp32 form and its gradient, as a plain cross-entropy keeps them."""
    return config.vocabulary * (element + 8)


def _groups(**counts: int) -> dict[str, int]:
    return {group: counts.get(group, 0) for group in GROUPS}


def _last_stack(config: ModelConfig) -> StackConfig:
    return config.stack if isinstance(config, VanillaConfig) else config.token_decoder.stack


def _layer_weights(stack: StackConfig) -> int:
    """Entries of one layer's matrices, cross-attention aside."""
    key_width = stack.kv_heads * stack.head_width
    return stack.width * (2 * stack.width + 2 * key_width + 2 * stack.feed_forward)


def _cross_weights(stack: StackConfig) -> tuple[int, int]:
    """Entries of one layer's cross-attention matrices: applied to every token, and to every slot."""
    return 2 * stack.width * stack.width, 2 * stack.width * stack.kv_heads * stack.head_width


def _layer_vectors(stack: StackConfig) -> int:
    """One layer's biases and norms, GPT-NeoX or RoBERTa."""
    return 2 * stack.kv_heads * stack.head_width + stack.feed_forward + 7 * stack.width


def _neox_parameters(stack: StackConfig) -> int:
    return stack.layers * (_layer_weights(stack) + _layer_vectors(stack)) + 2 * stack.width


def _t5_parameters(stack: StackConfig) -> int:
    layer = _layer_weights(stack) + sum(_cross_weights(stack)) + 3 * stack.width
    return stack.layers * layer + stack.width + T5_BUCKETS * stack.heads


def _embedder_parameters(config: BlockConfig) -> int:
    """Encoder and projection, without the vocabulary's table."""
    if not config.embedder.projects:
        return 0
    projection = (_embedder_outputs(config) + 1) * config.block_decoder.width
    stack = config.embedder.stack
    if stack is None:
        return projection
    positions_type_norm = (ENCODER_POSITIONS + 2 + 1 + 2) * stack.width
    return projection + positions_type_norm + stack.layers * (_layer_weights(stack) + _layer_vectors(stack))


def _embedder_outputs(config: BlockConfig) -> int:
    return (config.embedder.cls_tokens or config.block_length) * config.embedder.width


def _embedder_flops(config: BlockConfig) -> float:
    """A block's."""
    if not config.embedder.projects:
        return 0
    projection = 2 * _embedder_outputs(config) * config.block_decoder.width
    stack = config.embedder.stack
    if stack is None:
        return projection
    tokens = config.embedder.cls_tokens + config.block_length
    return projection + _matmuls(stack) * tokens + _attention(stack, tokens * tokens)


def _token_decoder_flops(config: BlockConfig, causal: bool) -> float:
    """A block's, expansion included, head left out."""
    stack, slots, length = config.token_decoder.stack, config.slots, config.block_length
    tokens = slots + length - 1 if config.token_decoder.kind == "prefix" else length
    pairs = tokens * (tokens + 1) / 2 if causal else tokens * tokens
    expansion = 2 * config.block_decoder.width * slots * stack.width
    flops = expansion + _matmuls(stack) * tokens + _attention(stack, pairs)
    if config.token_decoder.kind == "cross_attention":
        by_token, by_slot = _cross_weights(stack)
        flops += 2 * stack.layers * (by_token * length + by_slot * slots) + _attention(stack, length * slots)
    return flops


def _head_flops(config: ModelConfig) -> int:
    return 2 * _last_stack(config).width * config.vocabulary


def _matmuls(stack: StackConfig) -> int:
    """A token's products with the stack's matrices."""
    return 2 * stack.layers * _layer_weights(stack)


def _attention(stack: StackConfig, pairs: float) -> float:
    """Scores and weighted values of that many pairs of query and key."""
    return 4 * stack.layers * stack.width * pairs


def _keys(stack: StackConfig, position: float) -> float:
    return position if stack.window is None else min(position, stack.window)


def _causal_pairs(stack: StackConfig, length: int) -> float:
    window = int(_keys(stack, length))
    return window * (window + 1) / 2 + (length - window) * window


def _kv(stack: StackConfig, element: int) -> int:
    """Keys and values of one position."""
    return 2 * stack.layers * stack.kv_heads * stack.head_width * element


def _local_kv(config: BlockConfig, element: int) -> int:
    """Keys and values of the token decoder for one block."""
    slots, length = config.slots, config.block_length
    kept = length + slots if config.token_decoder.kind == "cross_attention" else length
    if config.token_decoder.kind == "prefix":
        kept = slots + length - 1
    return _kv(config.token_decoder.stack, element) * kept


def _kept(stack: StackConfig) -> int:
    """Numbers that a position keeps in all layers."""
    key_width = stack.kv_heads * stack.head_width
    rotated = 2 * (stack.width + 2 * key_width) - key_width
    return stack.layers * (4 * stack.width + rotated + stack.width + 2 * stack.feed_forward)
