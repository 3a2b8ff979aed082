"""The numbers that a decode step reads of its caches are those that the roofline counts, and so is the caches' size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.generation import Session
from pipeline.generation.engines import BlockEngine
from pipeline.generation.ops import TorchOps
from pipeline.models import costs
from tests.generation.models import CONFIGS, VOCABULARY, model

ELSEWHERE = {"cross-attention", "cls", "overlap-cls"}
"""Models with attention to what is in no cache."""


def places(x: Tensor) -> set[tuple[int, int]]:
    """Where in memory every number of ``x`` stands."""
    storage = x.untyped_storage()
    numbers = torch.arange(storage.nbytes() // x.element_size()).as_strided(x.shape, x.stride(), x.storage_offset())
    return {(storage.data_ptr(), number) for number in numbers.flatten().tolist()}


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - ELSEWHERE))
def test_every_block_reads_what_its_tokens_are_said_to(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number once per token, and the block decoder's once per block."""
    attention, seen = F.scaled_dot_product_attention, set[tuple[int, int]]()

    def attend(query: Tensor, key: Tensor, value: Tensor, **rest: Any) -> Tensor:
        seen.update(places(key) | places(value))
        return attention(query, key, value, **rest)

    def choose(hidden: Tensor, out: Tensor) -> None:
        counts.append(len(seen))
        seen.clear()

    config, length = CONFIGS[name], CONFIGS[name].stride
    prompt = torch.arange(2 * length)[None] % VOCABULARY
    session = Session(model(name), 1, prompt.shape[1], 8 * length, ops=TorchOps())
    session.prefill(prompt)
    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    with torch.inference_mode():
        for block in range(3, 9):
            counts: list[int] = []
            session.engine.advance(prompt[:, :length])
            session.engine.emit(choose, prompt[:, length:])
            expected = [config.cached_read(position) for position in range(block * length, (block + 1) * length)]
            assert sum(counts) == pytest.approx(sum(expected))


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - ELSEWHERE))
def test_caches_are_as_large_as_they_are_said_to_be(name: str) -> None:
    """A layer with a window keeps what it sees; the block decoder's outputs that a token decoder sees come on top."""
    config, length = CONFIGS[name], CONFIGS[name].stride
    engine = Session(model(name), 1, 2 * length, 8 * length, ops=TorchOps()).engine
    outputs = engine.contexts.values.nbytes if isinstance(engine, BlockEngine) else 0
    assert engine.bytes - outputs == costs.kv_bytes(config, 10 * length, element=4)
