"""What a model costs, from its configuration alone: parameters, FLOPs, bytes. No torch here.

What a kind of part costs stands with its configuration; here it is added up. FLOPs are those of matrix products, two a
multiply-add, attention included; norms, activations and look-ups are left out. Training counts what is computed, as
torch's FlopCounterMode does: attention over whole T x T squares, or a window's chunks, backward twice the forward pass.
Prefill and decode count what is needed: only keys that a query attends to, one row of logits.
"""

from __future__ import annotations

from pipeline.models.family_config import ModelConfig

GROUPS = ("embedding", "embedder", "block_decoder", "token_decoder", "head")
EMBEDDING_GROUPS = ("embedding", "head")


def parameters(config: ModelConfig) -> dict[str, int]:
    """Parameters by group; they sum up to the model's.

    ``embedding``: the input tables of the vocabulary; ``head``: the output table (0 where it is tied to an input
    table); ``embedder``: encoder and projection; a vanilla model's layers are its ``token_decoder``.
    """
    counts = config.parameters()
    return {group: counts.get(group, 0) for group in GROUPS}


def total_parameters(config: ModelConfig) -> int:
    """All parameters, tables of the vocabulary included."""
    return sum(parameters(config).values())


def non_embedding_parameters(config: ModelConfig) -> int:
    """Parameters without the vocabulary's tables: the size that the paper names its models by."""
    return sum(count for group, count in parameters(config).items() if group not in EMBEDDING_GROUPS)


def layer_matrices(config: ModelConfig) -> int:
    """Entries of the matrices of all layers, which an optimizer may treat apart from the other parameters."""
    return config.layer_matrices


def training_flops_per_token(config: ModelConfig) -> float:
    """Forward and backward, a token of a sequence of the context length."""
    return 3 * config.forward_flops(config.context_length) / config.context_length


def causal_training_flops_per_token(config: ModelConfig) -> float:
    """:func:`training_flops_per_token` with attention over the pairs of query and key that a causal mask leaves."""
    return 3 * config.forward_flops(config.context_length, causal=True) / config.context_length


def training_memory(config: ModelConfig, matrix_moments: int = 2, other_moments: int = 2) -> int:
    """Bytes of fp32 weights, gradients and optimizer state, and one sequence's activations with a fused loss.

    The optimizer keeps so many moments of the layers' matrices and of the other parameters.
    """
    matrices, total = layer_matrices(config), total_parameters(config)
    state = 4 * ((2 + matrix_moments) * matrices + (2 + other_moments) * (total - matrices))
    return state + int(config.context_length * activation_bytes_per_token(config))


def decode_weight_bytes(config: ModelConfig, element: int = 2) -> float:
    """Weights that a decode step reads, once for the whole batch; a block transformer's mean over a block's tokens."""
    return element * config.decode_parameters()


def kv_bytes(config: ModelConfig, length: int, element: int = 2) -> int:
    """Keys and values kept for a sequence of ``length`` tokens, the token decoder's own few included."""
    return element * config.cached(length)


def kv_bytes_per_token(config: ModelConfig, element: int = 2) -> float:
    """Keys and values that a further token of a sequence adds."""
    return element * config.cached_per_token


def kv_bytes_read(config: ModelConfig, position: int, element: int = 2) -> float:
    """Keys and values that decoding a token after ``position`` others reads; a mean over the tokens of a block."""
    return element * config.cached_read(position)


def activation_bytes_per_token(config: ModelConfig, element: int = 2) -> float:
    """What a training pass keeps for the backward pass, a token; an estimate, without the logits.

    A fused loss adds :func:`logit_bytes_per_token` for as many tokens as it takes at a time.
    """
    return element * config.kept_per_token


def logit_bytes_per_token(config: ModelConfig, element: int = 2) -> int:
    """Logits of one token, their fp32 form and its gradient, as a plain cross-entropy keeps them."""
    return config.vocabulary * (element + 8)
