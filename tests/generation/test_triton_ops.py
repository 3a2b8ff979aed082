"""The Triton kernels against plain torch. On a machine without a GPU: TRITON_INTERPRET=1, with Triton installed."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.generation import Sampling, Session, generate
from pipeline.generation.cache import Cache, Clock, LocalCache, Stretch
from pipeline.generation.folded import FoldedStack, fold
from pipeline.generation.ops import TorchOps
from pipeline.generation.session import CAPTURE_STEPS
from pipeline.models import build
from pipeline.models.config import (
    BlockConfig,
    LlamaConfig,
    LookupConfig,
    ModelConfig,
    PrefixConfig,
    StackConfig,
    VanillaConfig,
)
from pipeline.models.layers import Stack

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not CUDA and not INTERPRETED, reason="needs a CUDA device")]

STACKS = {
    "plain": StackConfig(2, 64, 4, 4, 80),
    "grouped": StackConfig(2, 64, 4, 2, 80, window=64),
    "one-head": StackConfig(1, 64, 2, 1, 64, rotary_fraction=1.0),
    "llama": LlamaConfig(2, 64, 4, 2, 72),
    "qwen": LlamaConfig(2, 64, 4, 2, 72, query_key_norm=True, head_dim=32, window=4, global_every=2),
}
ROWS = 5


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> FoldedStack:
    torch.manual_seed(0)
    built = Stack(STACKS[request.param]).to(DEVICE)
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return fold(built)


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> TorchOps:
    """Kernels for every size, also where cuBLAS would be faster."""
    from pipeline.generation import triton_ops

    monkeypatch.setattr(triton_ops, "_small", lambda x: False)
    ops = triton_ops.TritonOps(DEVICE)
    ops.linear_tile = ops.gated_tile = ops.head_tile = (16, 32, 16, 4, 2)
    ops.decode_tile, ops.prompt_tile = (16, 4, 2), (16, 16, 4, 2)
    ops.graphs = CUDA
    return ops


def random(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE)


def assert_attended_equal(ours: Tensor, expected: Tensor, stack: FoldedStack) -> None:
    """Attention's output and what follows; the keys and values before it may be left in any state."""
    torch.testing.assert_close(ours[:, stack.key_values :], expected[:, stack.key_values :], atol=3e-6, rtol=1e-5)


def test_products_and_norms(stack: FoldedStack, triton: TorchOps) -> None:
    plain, layer, x = TorchOps(), stack.layers[-1], random(ROWS, 64)
    normed = plain.normalise(x, layer.shift, stack.config)
    torch.testing.assert_close(triton.normalise(x, layer.shift, stack.config), normed)
    torch.testing.assert_close(triton.final_norm(x, stack), plain.final_norm(x, stack))
    for product in ("project", "key_values"):
        ours, expected = (getattr(ops, product)(normed, layer, stack) for ops in (triton, plain))
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    ours, expected, u = x.clone(), x.clone(), random(ROWS, stack.columns)
    triton.output(ours, u, layer, stack)
    plain.output(expected, u, layer, stack)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not CUDA, reason="the interpreter knows no instruction of a processor's own")
def test_gelu_in_bf16_is_as_near_as_its_rounding() -> None:
    from pipeline.generation.triton_ops import TritonOps

    torch.manual_seed(0)
    stack = fold(Stack(StackConfig(1, 64, 4, 4, 256)).to(DEVICE, torch.bfloat16))
    x = random(4096, 64).bfloat16() * 4
    inner = torch.nn.functional.linear(x.double(), stack.layers[0].input_weight.double())[:, -256:]
    inner += stack.layers[0].input_bias[-256:].double()
    exact = torch.nn.functional.gelu(inner)
    error = (TritonOps(DEVICE).project(x, stack.layers[0], stack)[:, -256:].double() - exact).abs()
    # Half of tanh's error of 2^-10.9, the polynomial's, and bf16's rounding.
    assert (error <= inner.abs() * 2.7e-4 + 5e-5 + exact.abs() * 2**-8).all()
    assert error.square().mean().sqrt() <= 1.1 * (exact.bfloat16().double() - exact).square().mean().sqrt()


def test_memories(triton: TorchOps) -> None:
    torch.manual_seed(0)
    tables, norm = random(3, 20, 16), torch.nn.RMSNorm(16, 1e-5).to(DEVICE)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
    tokens = torch.randint(20, (3, 50), device=DEVICE).T  # as decoding has them: place by place
    known = torch.rand(50, 3, device=DEVICE) < 0.7
    known[7] = False
    ours = triton.memories(tokens, known, tables, norm)
    torch.testing.assert_close(ours, TorchOps().memories(tokens, known, tables, norm))
    assert (ours[7] == 0).all()
    changed = tokens.where(known, 0)
    assert torch.equal(triton.memories(changed, known, tables, norm), ours)


def test_argmax_takes_the_first_of_equals(triton: TorchOps) -> None:
    hidden, weight = random(ROWS, 64), random(97, 64)
    weight[60], weight[90] = weight[30], weight[30]
    hidden[0] = weight[30] * 10
    found = torch.full((ROWS, 3), -1, device=DEVICE)
    triton.argmax(hidden, weight, found[:, 1])
    assert found[:, 1].tolist() == (hidden @ weight.T).argmax(-1).tolist()
    assert found[0, 1] == 30
    assert (found[:, [0, 2]] == -1).all()


def test_local_attention(stack: FoldedStack, triton: TorchOps) -> None:
    ours, expected = LocalCache(stack, ROWS, 4), LocalCache(stack, ROWS, 4)
    for position in range(4):
        u = random(ROWS, stack.columns)
        other = u.clone()
        triton.local_attention(u, ours, 0, position)
        TorchOps().local_attention(other, expected, 0, position)
        assert_attended_equal(u, other, stack)


def test_local_attention_leaves_out_what_is_not_known(stack: FoldedStack, triton: TorchOps) -> None:
    ours, expected = LocalCache(stack, ROWS, 5, masked=3), LocalCache(stack, ROWS, 5, masked=3)
    known = torch.tensor([[0, 0, 1, 0, 1], [0, 1, 1, 0, 0], [0, 1, 1, 1, 1]], dtype=torch.bool)
    for cache in (ours, expected):
        cache.known.copy_(known)
    for position in range(5):
        u = random(ROWS, stack.columns)
        other = u.clone()
        triton.local_attention(u, ours, 0, position)
        TorchOps().local_attention(other, expected, 0, position)
        assert_attended_equal(u, other, stack)


@pytest.mark.parametrize("carried", [0, 2])
def test_keys_and_values_of_a_blocks_first_positions(carried: int, stack: FoldedStack, triton: TorchOps) -> None:
    """Stored at once as one by one, by attention, from rows without queries."""
    at_once, one_by_one = (LocalCache(stack, ROWS, 5 + carried, carried=carried) for _ in range(2))
    u = random(3 * ROWS, stack.columns)
    triton.store_local(u[:, : stack.key_values].contiguous(), at_once, 0)
    for position, rows in enumerate(u.chunk(3)):
        TorchOps().local_attention(rows.clone(), one_by_one, 0, carried + position)
    torch.testing.assert_close(at_once.keys[0], one_by_one.keys[0])
    torch.testing.assert_close(at_once.values[0], one_by_one.values[0])


@pytest.mark.parametrize("starts", [[0] * ROWS, [0, 3, 7, 2, 9]])
@pytest.mark.parametrize("processors", [1, 132])
def test_prefill_and_decode_attention(stack: FoldedStack, triton: TorchOps, starts: list[int], processors: int) -> None:
    triton.processors = processors
    ours, expected, length = (
        Cache(stack.config, stack.norm_weight, ROWS, 100),
        Cache(stack.config, stack.norm_weight, ROWS, 100),
        75,  # more than a window that is long enough to be split
    )
    clock = Clock(DEVICE)
    clock.set(length - 1)
    for cache in (ours, expected):
        cache.set_starts(starts)
    for rows in (slice(0, 2), slice(2, ROWS)):
        first = min(starts[rows])
        u = random((rows.stop - rows.start) * (length - first), stack.columns)
        other = u.clone()
        triton.sequence_attention(u, Stretch(ours, rows, first), 0)
        TorchOps().sequence_attention(other, Stretch(expected, rows, first), 0)
        assert_attended_equal(u, other, stack)
    for _ in range(3):
        clock.advance()
        u = random(ROWS, stack.columns)
        other = u.clone()
        triton.decode_attention(u, ours, 0, clock)
        TorchOps().decode_attention(other, expected, 0, clock)
        assert_attended_equal(u, other, stack)
    torch.testing.assert_close(ours.keys, expected.keys)
    torch.testing.assert_close(ours.values, expected.values)


@pytest.mark.parametrize("starts", [[0] * ROWS, [0, 3, 7, 2, 9]])
def test_layers_of_prompts(stack: FoldedStack, triton: TorchOps, starts: list[int]) -> None:
    """With a layer of which keys and values alone are wanted; one window is shorter than the prompts."""
    length, last = 75, len(stack.layers) - 1
    if stack.config.rotary_width <= 16 and stack.layers[0].feed_forward is None:
        triton._rotate_and_store = None  # type: ignore[attr-defined]  # the product does it
    caches = ours, expected = [Cache(stack.config, stack.norm_weight, ROWS, 100) for _ in range(2)]
    for cache in caches:
        cache.set_starts(starts)
    for rows in (slice(0, 2), slice(2, ROWS)):
        first = min(starts[rows])
        x = random((rows.stop - rows.start) * (length - first), 64)
        taken = []
        for ops, cache in zip((triton, TorchOps()), caches, strict=True):
            taken.append(x.clone())
            ops.prompt_layer(taken[-1], stack, 0, Stretch(cache, rows, first))
            if last:
                ops.prompt_keys(taken[-1], stack, last, Stretch(cache, rows, first))
        torch.testing.assert_close(*taken, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(ours.keys, expected.keys, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.values, expected.values, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not CUDA, reason="tiles of the size that a GPU takes")
@pytest.mark.parametrize("starts", [[0, 0, 0], [0, 70, 3]])
@pytest.mark.parametrize("window", [None, 40, 130])
def test_prompts_in_bf16(window: int | None, starts: list[int]) -> None:
    from pipeline.generation.triton_ops import TritonOps

    torch.manual_seed(0)
    config = StackConfig(1, 256, 4, 2, 64, window=window)
    half, length = fold(Stack(config).to(DEVICE, torch.bfloat16)), 333
    u = random(3 * length, half.columns).bfloat16()
    exact = u.float()
    for ops, rows in ((TritonOps(DEVICE), u), (TorchOps(), exact)):
        cache = Cache(config, rows, 3, length)
        cache.set_starts(starts)
        ops.sequence_attention(rows, Stretch(cache, slice(0, 3), 0), 0)
    queries = slice(half.key_values, half.key_values + config.query_width)
    torch.testing.assert_close(u[:, queries].float(), exact[:, queries], atol=0.02, rtol=0.02)


LOOKUP = LookupConfig(16)


def local_model(embedder: LookupConfig = LOOKUP, **keys: Any) -> BlockConfig:
    """A block transformer whose token decoder has these keys."""
    stack = StackConfig(1, 32, 2, 1, 96)
    return BlockConfig(97, 64, 4, embedder, StackConfig(1, 64, 4, 2, 64), PrefixConfig(stack, 2, **keys))


@pytest.mark.parametrize(
    "config",
    [
        VanillaConfig(97, 64, StackConfig(2, 64, 4, 2, 96, window=5)),
        BlockConfig(
            97,
            64,
            4,
            LookupConfig(16),
            StackConfig(2, 64, 4, 2, 64),
            PrefixConfig(StackConfig(2, 32, 2, 2, 96), prefix_length=2),
        ),
        local_model(local=6),
        local_model(local=6, mix=True),
        local_model(LookupConfig(16, overlap=True, convolution=3), local=2, contexts=3),
        local_model(carry=True),
        local_model(local=2, memory=16),
        VanillaConfig(97, 64, LlamaConfig(2, 64, 4, 2, 96), tied=True),
        BlockConfig(97, 64, 4, LookupConfig(16), STACKS["qwen"], PrefixConfig(LlamaConfig(2, 32, 2, 2, 96), 2)),
    ],
    ids=["vanilla", "block", "local", "local-mixed", "contexts-overlap", "carried", "memory", "llama", "llama-block"],
)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0, seed=3), Sampling(1.0, top_k=20, top_p=0.9)])
def test_generation_equals_plain_torch_and_repeats(config: ModelConfig, sampling: Sampling, triton: TorchOps) -> None:
    """Enough steps that they are captured as a graph on a CUDA device."""
    count = (CAPTURE_STEPS + 2) * config.stride
    model = build(config).to(DEVICE).eval()
    with torch.no_grad():
        model.head_weight.mul_(30)
        for weight in model.parameters():
            if not weight.any():  # biases, and matrices that start as nothing
                weight.normal_(std=0.1)
    prompts = [torch.randint(97, (length,)).tolist() for length in (1, 5, 9, 6)]
    session = Session(model, 4, 9, count, sampling, ops=triton)
    expected = Session(model, 4, 9, count, sampling, ops=TorchOps()).run(prompts)
    assert torch.equal(session.run(prompts), expected)
    assert torch.equal(session.run(prompts), expected)


@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
@pytest.mark.parametrize("window", [None, 40])
def test_heads_of_256_in_fp32(window: int | None) -> None:
    """The largest tiles that there are."""
    model = build(VanillaConfig(97, 128, StackConfig(2, 256, 1, 1, 64, window=window))).to(DEVICE).eval()
    prompts = [torch.randint(97, (length,)).tolist() for length in (90, 70)]
    expected = Session(model, 2, 90, 20, ops=TorchOps()).run(prompts)
    assert torch.equal(Session(model, 2, 90, 20).run(prompts), expected)


@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
def test_streaming_and_end_of_text_on_the_device() -> None:
    """The host sees tokens one step late there, and must still see all of them in order."""
    model = build(VanillaConfig(97, 64, STACKS["plain"])).to(DEVICE).eval()
    prompts = [torch.randint(97, (length,)).tolist() for length in (4, 7)]
    free = generate(model, prompts, 30)
    streamed: list[list[int]] = [[], []]
    assert generate(model, prompts, 30, stream=lambda row, tokens: streamed[row].extend(tokens)) == free == streamed
    end = free[0][20]
    expected = [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in free]
    assert generate(model, prompts, 30, end_of_text=end) == expected
