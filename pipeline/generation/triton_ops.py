"""The operations of a decode step as Triton kernels and cuBLAS products; see :mod:`pipeline.generation.ops`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import triton
from torch import Tensor, nn
from triton.tools.tensor_descriptor import TensorDescriptor

from pipeline.generation import attention_kernels, kernels
from pipeline.generation.cache import Cache, Clock, LocalCache, Stretch
from pipeline.generation.folded import FoldedLayer, FoldedStack
from pipeline.generation.ops import TorchOps, query_heads
from pipeline.models.attention import Mask, attend
from pipeline.models.config import StackConfig
from pipeline.models.language_model import LanguageModel
from pipeline.models.layers import Stack
from pipeline.models.memory import MemoryAttention

SMALL = 256
"""Rows under which cuBLAS's products with separate activations are faster than the fused ones; fp32 always uses it."""

LONG = 1024
"""Positions above which a library's attention is faster, where it can be used: to prompts without window or padding."""


NOWHERE = {
    "keys": None, "values": None, "cosine": None, "sine": None, "FIRST": 0,
    "KEYS": 0, "QUERIES": 0, "E": 0, "ROTARY": 0,
}  # fmt: skip
"""For a product that leaves keys and values in its rows."""


class TritonOps(TorchOps):
    """Fused kernels. Attention takes the filled length from the device, so one graph serves every length."""

    graphs = True

    def __init__(self, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self.processors = torch.cuda.get_device_properties(device).multi_processor_count if cuda else 2
        # (rows, columns, inner width, warps, pipeline stages) of a tile.
        # Two tiles of the input products share a processor, so that one multiplies while the other activates.
        self.linear_tile = (128, 128, 64, 4, 3)
        self.gated_tile = (128, 256, 64, 8, 4)
        self.head_tile = (128, 256, 64, 8, 3)
        self.decode_tile = (64, 4, 3)  # (cached positions, warps, pipeline stages)
        self.prompt_tile = (64, 64, 4, 2)  # (positions that attend, cached positions, warps, pipeline stages)

    @staticmethod
    def supports(model: LanguageModel) -> bool:
        """GPT-NeoX's and Llama's layers. Tiles are powers of two: head widths must be, from 16 to 256."""
        stacks = [module.config for module in model.modules() if isinstance(module, Stack)]
        widths = [stack.head_width for stack in stacks]
        widths += [module.width for module in model.modules() if isinstance(module, MemoryAttention)]
        tiled = all(16 <= width <= 256 and width & (width - 1) == 0 for width in widths)
        return tiled and all(stack.layer in ("neox", "llama") for stack in stacks)

    def normalise(self, x: Tensor, shift: Tensor | None, config: StackConfig) -> Tensor:
        return self._norm(x, shift, None, None, config)

    def final_norm(self, x: Tensor, stack: FoldedStack) -> Tensor:
        return self._norm(x, stack.shift, stack.norm_weight, stack.norm_bias, stack.config)

    def _norm(
        self, x: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, config: StackConfig
    ) -> Tensor:
        rows, width = x.shape
        y = x.new_empty(rows, width)
        kernels.norm_kernel[(rows,)](
            x, x.stride(0), shift, weight, bias, y, width, config.norm_eps,
            CENTRED=config.centred, AFFINE=weight is not None, BD=triton.next_power_of_2(width), num_warps=4,
        )  # fmt: skip
        return y

    def normalise_heads(self, u: Tensor, layer: FoldedLayer, stack: FoldedStack) -> None:
        if layer.head_scale is None:
            return
        config, (rows, columns), block = stack.config, u.shape, 32
        heads = min(len(layer.head_scale), columns - config.key_width) // config.head_width
        kernels.head_norm_kernel[(triton.cdiv(rows, block), heads)](
            u, u.stride(0), layer.head_scale, rows, config.norm_eps,
            FIRST=config.key_width, E=config.head_width, BM=block, num_warps=4,
        )  # fmt: skip

    def gated(self, y: Tensor, weight: Tensor) -> Tensor:
        if _small(y):
            return super().gated(y, weight)
        (rows, width), inner = y.shape, len(weight) // 2
        out = y.new_empty(rows, inner)
        bm, bn, bk, warps, stages = self.gated_tile
        half = bn // 2  # of both products a tile has so many columns
        programs = min(self.processors, triton.cdiv(rows, bm) * triton.cdiv(inner, half))
        kernels.gated_linear_kernel[(programs,)](
            _tiles(y, bm, bk), _tiles(weight, half, bk), _tiles(out, bm, half), rows, inner, width,
            BM=bm, BN=half, BK=bk, GROUP=8, PROGRAMS=programs, PRECISION=_precision(y),
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
        return out

    def project(self, y: Tensor, layer: FoldedLayer, stack: FoldedStack) -> Tensor:
        if _small(y) or layer.feed_forward is not None:  # without bias and activation there is nothing to fuse
            return super().project(y, layer, stack)
        assert layer.input_bias is not None
        u = y.new_empty(len(y), len(layer.input_weight))
        self._linear(y, layer.input_weight, layer.input_bias, u, u.shape[1] - stack.config.feed_forward)
        return u

    def linear(self, y: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        if _small(y):
            super().linear(y, weight, bias, out)
        else:
            self._linear(y, weight, bias, out, len(weight))

    def _linear(
        self, y: Tensor, weight: Tensor, bias: Tensor, out: Tensor, gelu_from: int,
        samples: int = 1, into: Mapping[str, Any] = NOWHERE,
    ) -> None:  # fmt: skip
        (rows, width), columns = y.shape, len(weight)
        bm, bn, bk, warps, stages = self.linear_tile
        length = rows // samples
        programs = min(2 * self.processors, samples * triton.cdiv(length, bm) * triton.cdiv(columns, bn))
        kernels.linear_kernel[(programs,)](
            _tiles(y, bm, bk), _tiles(weight, bn, bk), self._half_tiles(out.unflatten(0, (samples, length))), bias,
            samples, length, columns, width, **into, GELU_FROM=gelu_from,
            BM=bm, BN=bn, BK=bk, GROUP=8, PROGRAMS=programs, PRECISION=_precision(y),
            num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def _half_tiles(self, tensor: Tensor) -> TensorDescriptor:
        """Of three dimensions, as the product's kernel stores."""
        return _tiles(tensor, 1, self.linear_tile[0], self.linear_tile[1] // 2)

    def memories(self, tokens: Tensor, known: Tensor, tables: Tensor, norm: nn.RMSNorm) -> Tensor:
        (rows, places), (_, vocabulary, width), block = tokens.shape, tables.shape, 32
        y = norm.weight.new_empty(rows, width)
        kernels.memory_kernel[(triton.cdiv(rows, block),)](
            tokens.contiguous(), known.contiguous().view(torch.uint8), tables, norm.weight, y, rows, vocabulary,
            norm.eps, PLACES=places, R=width, BM=block, num_warps=4,
        )  # fmt: skip
        return y

    def argmax(self, hidden: Tensor, weight: Tensor, out: Tensor) -> None:
        rows, width = hidden.shape
        if _small(hidden):
            return super().argmax(hidden, weight, out)
        vocabulary = weight.shape[0]
        bm, bn, bk, warps, stages = self.head_tile
        tiles = triton.cdiv(vocabulary, bn)
        programs = min(self.processors, triton.cdiv(rows, bm) * tiles)
        values = torch.empty(tiles, rows, dtype=torch.float32, device=hidden.device)
        indices = torch.empty(tiles, rows, dtype=torch.int32, device=hidden.device)
        kernels.head_argmax_kernel[(programs,)](
            _tiles(hidden, bm, bk), _tiles(weight, bn, bk), values, indices, rows, vocabulary, width,
            BM=bm, BN=bn, BK=bk, GROUP=8, PROGRAMS=programs, PRECISION=_precision(hidden),
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
        kernels.pick_kernel[(triton.cdiv(rows, 32),)](
            values, indices, out, out.stride(0), rows, tiles, BT=triton.next_power_of_2(tiles), BM=32, num_warps=4
        )

    def decode_attention(self, u: Tensor, cache: Cache, layer: int, clock: Clock) -> None:
        config, (block, warps, stages) = cache.config, self.decode_tile
        width, group, padded = config.head_width, config.heads // config.kv_heads, _padded_group(config)
        if width * u.element_size() > 512:  # its tiles would not fit the shared memory
            block //= 2
        # Few rows leave processors idle: then what a row may attend to is split, into as many parts as give each
        # processor 8 programs, but of two tiles at least, at most 64, and a power of two, so that few kernels are
        # compiled.
        spans, room = len(u) * config.kv_heads, cache.rooms[layer]
        splits = max(1, min(triton.cdiv(8 * self.processors, spans), room // (2 * block), 64))
        splits = 1 << splits.bit_length() - 1
        # One allocation for the parts' values [spans, splits, padded, E], peaks and weights [spans, splits, padded].
        parts = torch.empty(spans * splits * padded * (width + 2), dtype=torch.float32, device=u.device)
        parts, peaks, weights = parts.split([spans * splits * padded * n for n in (width, 1, 1)])
        sizes = {"KV": config.kv_heads, "G": group, "GP": padded, "E": width, "SPLITS": splits}
        attention_kernels.decode_attention_kernel[(spans, splits)](
            u, u.stride(0), cache.keys[layer], cache.values[layer], cache.starts, clock.device,
            cache.cosine, cache.sine, parts, peaks, weights, width**-0.5, room,
            TIED=cache.tied, RING=room < cache.capacity, ROTARY=config.rotary_width, BT=block,
            PRECISION=_precision(u), **sizes, num_warps=warps, num_stages=stages,
        )  # fmt: skip
        if splits > 1:
            attention_kernels.combine_kernel[(len(u) * config.heads,)](
                u, u.stride(0), parts, peaks, weights, BS=triton.next_power_of_2(splits), **sizes, num_warps=2
            )

    def local_attention(self, u: Tensor, cache: LocalCache, layer: int, position: int) -> None:
        config, rows, block = cache.config, len(u), 16
        attention_kernels.local_attention_kernel[(triton.cdiv(rows, block), config.heads)](
            u, u.stride(0), cache.keys[layer], cache.values[layer], cache.known.view(torch.uint8),
            cache.cosine, cache.sine, rows,
            # No position of the block follows the last, so that its key is read where it is carried alone.
            config.head_width**-0.5, POSITION=position, KV=config.kv_heads,
            STORE=cache.carried > 0 or position + 1 < cache.keys.shape[1],
            G=config.heads // config.kv_heads, E=config.head_width, ROTARY=config.rotary_width,
            MASKED=len(cache.known), BM=block, num_warps=4,
        )  # fmt: skip

    def store_local(self, u: Tensor, cache: LocalCache, layer: int) -> None:
        config, rows, block = cache.config, len(u), 32
        attention_kernels.local_store_kernel[(triton.cdiv(rows, block), config.kv_heads)](
            u, u.stride(0), cache.keys[layer, cache.carried :], cache.values[layer, cache.carried :],
            cache.cosine[cache.carried :], cache.sine[cache.carried :], rows, cache.keys.shape[2],
            KV=config.kv_heads, E=config.head_width, ROTARY=config.rotary_width, BM=block, num_warps=4,
        )  # fmt: skip

    def prompt_layer(self, x: Tensor, stack: FoldedStack, index: int, stretch: Stretch) -> None:
        layer = stack.layers[index]
        if not self._stores_as_it_projects(x, layer, stretch):
            return super().prompt_layer(x, stack, index, stretch)
        u = x.new_empty(len(x), len(layer.input_weight))
        keys, values = self._project_and_store(x, u, stack, index, stretch)
        self._prompt_attention(u, keys, values, stretch, index, rotated=True)
        self.output(x, u, layer, stack)

    def prompt_keys(self, x: Tensor, stack: FoldedStack, index: int, stretch: Stretch) -> None:
        if not self._stores_as_it_projects(x, stack.layers[index], stretch):
            return super().prompt_keys(x, stack, index, stretch)
        self._project_and_store(x, x.new_empty(len(x), stack.key_values), stack, index, stretch)

    def _stores_as_it_projects(self, x: Tensor, layer: FoldedLayer, stretch: Stretch) -> bool:
        """Whether half a tile of the input product is of one head and holds its rotation, and most tiles are full."""
        config, tile, half = stretch.cache.config, self.linear_tile[0], self.linear_tile[1] // 2
        rotary, length = config.rotary_width, len(x) // stretch.samples
        fits = config.head_width % half == 0 and 2 <= rotary <= half and rotary.bit_count() == 1
        full = triton.cdiv(length, tile) * tile <= 1.25 * length
        return fits and full and not _small(x) and layer.input_bias is not None and layer.head_scale is None

    def _project_and_store(
        self, x: Tensor, u: Tensor, stack: FoldedStack, index: int, stretch: Stretch
    ) -> tuple[Tensor, Tensor]:
        """As many columns of projected rows as ``u`` has, queries rotated, but keys and values: these are returned."""
        layer, config, cache, columns = stack.layers[index], stack.config, stretch.cache, u.shape[1]
        assert layer.input_bias is not None
        y, weight, bias = self.normalise(x, layer.shift, config), layer.input_weight, layer.input_bias
        positions, gelu_from = stretch.positions(x), stack.key_values + config.query_width
        with _storing(stretch, positions, index) as rooms:
            keys, values = (room[:, :, positions] for room in rooms)
            into = {
                "keys": self._half_tiles(keys.flatten(0, 1)), "values": self._half_tiles(values.flatten(0, 1)),
                "cosine": cache.cosine, "sine": cache.sine, "FIRST": stretch.first, "KEYS": config.key_width,
                "QUERIES": config.query_width, "E": config.head_width, "ROTARY": config.rotary_width,
            }  # fmt: skip
            self._linear(y, weight[:columns], bias[:columns], u, gelu_from, stretch.samples, into)
        return keys, values

    def sequence_attention(self, u: Tensor, stretch: Stretch, layer: int) -> None:
        rotated = _by_library(u, stretch, layer)
        keys, values = self._rotate_and_store(u, stretch, layer, queries=rotated)
        self._prompt_attention(u, keys, values, stretch, layer, rotated=rotated)

    def _prompt_attention(
        self, u: Tensor, keys: Tensor, values: Tensor, stretch: Stretch, layer: int, *, rotated: bool
    ) -> None:
        """Attention of a stretch in place of its queries, to its keys, rotated, and values [B, KV, T, E]."""
        if _by_library(u, stretch, layer):
            query = query_heads(u, stretch)
            query.copy_(attend(query.transpose(1, 2), keys, values, Mask(causal=True)).view(query.shape))
            return
        cache, length = stretch.cache, len(u) // stretch.samples
        config, width = cache.config, cache.config.head_width
        queries, block, warps, stages = self.prompt_tile
        if u.dtype == torch.float32:  # larger ones take minutes to compile
            queries, block = (min(size, 16 if width > 128 else 32) for size in (queries, block))
        attention_kernels.prompt_attention_kernel[(triton.cdiv(length, queries) * config.heads * stretch.samples,)](
            u, u.stride(0), keys, values, keys.stride(0), keys.stride(1), cache.starts[stretch.rows],
            None if rotated else cache.cosine, None if rotated else cache.sine,
            length, stretch.first, config.windows[layer] or length, width**-0.5,
            KV=config.kv_heads, G=config.heads // config.kv_heads, E=width, ROTARY=config.rotary_width,
            BQ=queries, BT=block, PRECISION=_precision(u), num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def store(self, u: Tensor, stretch: Stretch, layer: int) -> None:
        self._rotate_and_store(u, stretch, layer, queries=False)

    def _rotate_and_store(self, u: Tensor, stretch: Stretch, layer: int, *, queries: bool) -> tuple[Tensor, Tensor]:
        """A stretch's keys and values [B, KV, T, E], stored; with ``queries`` these are rotated too."""
        cache, positions, block = stretch.cache, stretch.positions(u), 32
        config, heads = cache.config, cache.config.heads if queries else cache.config.kv_heads
        with _storing(stretch, positions, layer) as (keys, values):
            attention_kernels.rotate_and_store_kernel[(triton.cdiv(len(u), block), heads)](
                u, u.stride(0), keys, values, cache.cosine, cache.sine,
                len(u), len(u) // stretch.samples, stretch.first, keys.shape[2], KV=config.kv_heads,
                E=config.head_width, ROTARY=config.rotary_width, QUERIES=queries, BM=block, num_warps=4,
            )  # fmt: skip
        return keys[:, :, positions], values[:, :, positions]


@contextmanager
def _storing(stretch: Stretch, positions: slice, layer: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values [B, KV, room, E] to write positions to: the cache's, which without room for all get the last."""
    cache = stretch.cache
    keys, values = cache.keys[layer][stretch.rows], cache.values[layer][stretch.rows]
    if positions.stop <= cache.rooms[layer]:
        yield keys, values
        return
    shape = (len(keys), cache.config.kv_heads, positions.stop, cache.config.head_width)
    keys, values = keys.new_empty(shape), values.new_empty(shape)
    yield keys, values
    stretch.keep(keys[:, :, positions], values[:, :, positions], layer)


def _by_library(u: Tensor, stretch: Stretch, layer: int) -> bool:
    """Whether a library's attention is faster, and can be used; its queries must be rotated already."""
    length, window = len(u) // stretch.samples, stretch.cache.config.windows[layer]
    whole = not stretch.padded and (window is None or window >= length)
    return whole and (length > LONG or u.dtype == torch.float32)


def _small(x: Tensor) -> bool:
    return x.shape[0] < SMALL or x.dtype == torch.float32


def _tiles(tensor: Tensor, *shape: int) -> TensorDescriptor:
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), list(shape))


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else "tf32"


def _padded_group(config: StackConfig) -> int:
    """Query heads a key head serves, padded to the smallest tile of a matrix product."""
    return max(16, triton.next_power_of_2(config.heads // config.kv_heads))
