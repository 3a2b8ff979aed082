"""Attention's forms agree with each other."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models import build
from pipeline.models.attention import Mask, attend, causal_mask
from pipeline.models.short_attention import short_attention
from tests.models.test_models import lively, ragged, random_tokens
from tests.models.variants import VARIANTS

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
SEQUENCES = 23


def heads(count: int, length: int, seed: int) -> Tensor:
    """As a projection leaves them: [M, heads, T, E] that is a part of [M, T, more heads, E]."""
    generator = torch.Generator().manual_seed(seed)
    packed = torch.randn(SEQUENCES, length, count + 1, 24, generator=generator).to(DEVICE)
    return packed.transpose(1, 2)[:, 1:].requires_grad_()


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA and not INTERPRETED, reason="needs a CUDA device")
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("length", [3, 5, 9, 32])
@pytest.mark.parametrize("kind", ["all", "causal", "window", "padded"])
def test_short_attention_equals_the_usual_one(kind: str, length: int, kv_heads: int) -> None:
    """On a machine without a GPU: TRITON_INTERPRET=1, with Triton installed."""
    inputs = heads(4, length, 0), heads(kv_heads, length, 1), heads(kv_heads, length, 2)
    masks = {
        "all": Mask(),
        "causal": causal_mask(length, None, None, DEVICE),
        "window": causal_mask(length, None, 2, DEVICE),
        "padded": causal_mask(length, ragged(SEQUENCES, length).to(DEVICE), None, DEVICE),
    }
    mask = masks[kind]
    query, key, value = (x.double().cpu() for x in inputs)
    allowed = None if mask.allowed is None else mask.allowed.cpu()
    group = 4 // kv_heads
    expected = F.scaled_dot_product_attention(
        query, key.repeat_interleave(group, 1), value.repeat_interleave(group, 1), allowed, is_causal=mask.causal
    )
    found = short_attention(*inputs, mask.allowed, mask.causal, inputs[0].shape[-1] ** -0.5)
    torch.testing.assert_close(found.double().cpu(), expected, rtol=1e-5, atol=1e-5)
    aim = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    wanted = torch.autograd.grad((expected * aim).sum(), inputs)
    have = torch.autograd.grad((found * aim.float().to(DEVICE)).sum(), inputs)
    torch.testing.assert_close(have, wanted, rtol=1e-5, atol=1e-5)


def one_by_one(query: Tensor, key: Tensor, value: Tensor, window: int, first: list[int]) -> Tensor:
    """Sliding-window attention [B, T, heads * width], a query at a time; row b's positions begin at ``first[b]``."""
    batch, heads, length, width = query.shape
    key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
    rows = []
    for row in range(batch):
        for now in range(length):
            seen = slice(max(first[row], now + 1 - window), now + 1)
            scores = (key[row, :, seen] * query[row, :, now, None]).sum(-1) * width**-0.5
            rows.append((scores.softmax(-1)[..., None] * value[row, :, seen]).sum(1))  # 0 where nothing is seen
    return torch.stack(rows).view(batch, length, heads * width)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(
    ("length", "window"), [(1, 1), (130, 1), (128, 3), (127, 64), (192, 64), (300, 70), (144, 72), (99, 99), (80, 99)]
)
@pytest.mark.parametrize("padded", [False, True])
def test_sliding_windows_equal_attention_one_by_one(length: int, window: int, kv_heads: int, padded: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = inputs = [
        torch.randn(2, count, length, 6, generator=generator, dtype=torch.float64, requires_grad=True)
        for count in (4, kv_heads, kv_heads)
    ]
    first = [0, length // 2 if padded else 0]
    valid = torch.arange(length) >= torch.tensor(first)[:, None] if padded else None
    mask = causal_mask(length, valid, window, query.device)
    expected, found = one_by_one(query, key, value, window, first), attend(query, key, value, mask)
    torch.testing.assert_close(found, expected)
    aim = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    wanted, have = (torch.autograd.grad((x * aim).sum(), inputs) for x in (expected, found))
    torch.testing.assert_close(have, wanted)
    single = attend(query.float(), key.float(), value.float(), mask)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["vanilla_window", "lookup_prefix_5_unequal", "cls_cross_attention", "contexts_local", "carried"]
)
def test_models_compile_to_one_graph(name: str) -> None:
    """Nothing waits for a value on the device, so that training compiles whole and captures as a CUDA graph."""
    torch.compiler.reset()  # which would not compile the same code for more than a few models
    length = 150 if name == "vanilla_window" else 24  # where a window's chunks are three
    model, tokens, valid = lively(name), random_tokens(2, length), ragged(2, length)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens, valid), model(tokens, valid))
    torch.testing.assert_close(compiled(tokens), model(tokens))


@pytest.mark.gpu
@pytest.mark.parametrize(
    "name", ["lookup_prefix", "lookup_prefix_5_unequal", "cls_cross_attention", "contexts_local", "carried"]
)
def test_compiled_on_a_gpu(name: str) -> None:
    model, tokens, valid = lively(name), random_tokens(2, 24), ragged(2, 24)
    expected, padded = model(tokens), model(tokens, valid)
    torch.compiler.reset()
    model = model.cuda()
    compiled = torch.compile(model, fullgraph=True)
    kept = valid[:, model.stride :]
    torch.testing.assert_close(compiled(tokens.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(compiled(tokens.cuda(), valid.cuda()).cpu()[kept], padded[kept], rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_a_grouped_model_with_a_mask_fits_a_gpu() -> None:
    """A mask with grouped queries does not fall back to attention that stores every score."""
    model = build(VARIANTS["vanilla_window"]).cuda().bfloat16()
    tokens = torch.zeros(16, 8192, dtype=torch.int64, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    model.hidden(tokens).float().sum().backward()
    assert torch.cuda.max_memory_allocated() < 4 * 2**30
