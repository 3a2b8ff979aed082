"""Attention's forms agree with each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.models import build
from pipeline.models.attention import Mask, attend, attend_short, causal_mask
from tests.models.test_models import lively, ragged, random_tokens
from tests.models.variants import VARIANTS


def heads(count: int, length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, count, length, 8, generator=generator, requires_grad=True)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("kind", ["all", "causal", "window", "padded"])
def test_short_attention_equals_the_fused_one(kind: str, kv_heads: int) -> None:
    query, key, value = heads(4, 5, 0), heads(kv_heads, 5, 1), heads(kv_heads, 5, 2)
    masks = {
        "all": Mask(),
        "causal": causal_mask(5, None, None, query.device),
        "window": causal_mask(5, None, 2, query.device),
        "padded": causal_mask(5, ragged(3, 5), None, query.device),
    }
    expected = attend(query, key, value, masks[kind])
    found = attend_short(query, key, value, masks[kind]).transpose(1, 2).flatten(2)
    if kind == "padded":
        found = found * masks[kind].queries
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    aim = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    inputs = (query, key, value)
    wanted = torch.autograd.grad((expected * aim).sum(), inputs)
    for have, want in zip(torch.autograd.grad((found * aim).sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["vanilla_window", "lookup_prefix", "lookup_prefix_5_unequal", "cls_cross_attention"])
def test_models_compile_to_one_graph(name: str) -> None:
    """Nothing waits for a value on the device, so that training compiles whole and captures as a CUDA graph."""
    model, tokens, valid = lively(name), random_tokens(2, 24), ragged(2, 24)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens, valid), model(tokens, valid))
    torch.testing.assert_close(compiled(tokens), model(tokens))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["lookup_prefix", "lookup_prefix_5_unequal", "cls_cross_attention"])
def test_compiled_on_a_gpu(name: str) -> None:
    model, tokens, valid = lively(name), random_tokens(2, 24), ragged(2, 24)
    expected, padded = model(tokens), model(tokens, valid)
    model = model.cuda()
    compiled = torch.compile(model, fullgraph=True)
    kept = valid[:, model.first :]
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
