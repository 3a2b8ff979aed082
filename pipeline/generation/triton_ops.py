"""The operations of a decode step as Triton kernels and cuBLAS products; see :mod:`pipeline.generation.ops`."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor, nn
from triton.tools.tensor_descriptor import TensorDescriptor

from pipeline.generation import attention_kernels, kernels
from pipeline.generation.cache import Cache, Clock, LocalCache
from pipeline.generation.folded import FoldedLayer, FoldedStack
from pipeline.generation.ops import TorchOps, query_columns
from pipeline.models.attention import Mask, attend
from pipeline.models.config import StackConfig
from pipeline.models.language_model import LanguageModel
from pipeline.models.layers import Stack
from pipeline.models.memory import MemoryAttention

SMALL = 256
"""Rows under which cuBLAS's products with separate activations are faster than the fused ones; fp32 always uses it."""

LONG = 1024
"""Positions above which a library's attention is faster, where it can be used: to prompts without window or padding."""


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
        self, y: Tensor, weight: Tensor, bias: Tensor, out: Tensor, gelu_from: int, samples: int = 1, **places: Any
    ) -> None:
        """``places`` are those of keys and values, if ``weight`` begins with theirs, as the kernel says."""
        (rows, width), columns = y.shape, len(weight)
        bm, bn, bk, warps, stages = self.linear_tile
        length, tile = rows // samples, (1, bm, bn // 2)
        programs = min(2 * self.processors, samples * triton.cdiv(length, bm) * triton.cdiv(columns, bn))
        into = {"keys": None, "values": None, "cosine": None, "sine": None, "FIRST": 0}
        into |= {"KEYS": 0, "QUERIES": 0, "E": 0, "ROTARY": 0} | places
        for name in ("keys", "values"):
            if name in places:
                into[name] = _tiles(places[name].flatten(0, 1), *tile)
        kernels.linear_kernel[(programs,)](
            _tiles(y, bm, bk), _tiles(weight, bn, bk), _tiles(out.unflatten(0, (samples, length)), *tile), bias,
            samples, length, columns, width, **into, GELU_FROM=gelu_from,
            BM=bm, BN=bn, BK=bk, GROUP=8, PROGRAMS=programs, PRECISION=_precision(y),
            num_warps=warps, num_stages=stages,
        )  # fmt: skip

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

    def prompt_layer(self, x: Tensor, stack: FoldedStack, index: int, cache: Cache, rows: slice, first: int) -> None:
        layer = stack.layers[index]
        if not self._stores_as_it_projects(x, layer, cache, rows):
            return super().prompt_layer(x, stack, index, cache, rows, first)
        u = x.new_empty(len(x), len(layer.input_weight))
        keys, values = self._project_and_store(x, u, stack, index, cache, rows, first)
        self._prompt_attention(u, keys, values, cache, index, rows, first, rotated=True)
        self.output(x, u, layer, stack)

    def prompt_keys(self, x: Tensor, stack: FoldedStack, index: int, cache: Cache, rows: slice, first: int) -> None:
        if not self._stores_as_it_projects(x, stack.layers[index], cache, rows):
            return super().prompt_keys(x, stack, index, cache, rows, first)
        self._project_and_store(x, x.new_empty(len(x), stack.key_values), stack, index, cache, rows, first)

    def _stores_as_it_projects(self, x: Tensor, layer: FoldedLayer, cache: Cache, rows: slice) -> bool:
        """Whether a tile of the input product is of one head, rotates within itself, and is mostly full."""
        tile, half = self.linear_tile[0], self.linear_tile[1] // 2
        rotary, length = cache.config.rotary_width, len(x) // (rows.stop - rows.start)
        fits = cache.config.head_width % half == 0 and rotary <= half and rotary & (rotary - 1) == 0
        full = 4 * triton.cdiv(length, tile) * tile <= 5 * length
        return fits and full and not _small(x) and layer.input_bias is not None and layer.head_scale is None

    def _project_and_store(
        self, x: Tensor, u: Tensor, stack: FoldedStack, index: int, cache: Cache, rows: slice, first: int
    ) -> tuple[Tensor, Tensor]:
        """As many columns of projected rows as ``u`` has, queries rotated, but keys and values: these are returned."""
        layer, config, batch = stack.layers[index], stack.config, rows.stop - rows.start
        assert layer.input_bias is not None
        columns, last = u.shape[1], first + len(x) // batch
        keys, values = (part[:, :, first:last] for part in self._places(cache, index, rows, last))
        self._linear(
            self.normalise(x, layer.shift, config), layer.input_weight[:columns], layer.input_bias[:columns], u,
            stack.key_values + config.query_width, batch,
            keys=keys, values=values, cosine=cache.cosine, sine=cache.sine, FIRST=first,
            KEYS=config.key_width, QUERIES=config.query_width, E=config.head_width, ROTARY=config.rotary_width,
        )  # fmt: skip
        if last > cache.rooms[index]:
            cache.keep(keys, values, index, rows, first)
        return keys, values

    def sequence_attention(self, u: Tensor, cache: Cache, layer: int, rows: slice, first: int) -> None:
        rotated = self._by_library(u, cache, layer, rows, first)
        keys, values = self._rotate_and_store(u, cache, layer, rows, first, queries=rotated)
        self._prompt_attention(u, keys, values, cache, layer, rows, first, rotated=rotated)

    def _by_library(self, u: Tensor, cache: Cache, layer: int, rows: slice, first: int) -> bool:
        length, window = len(u) // (rows.stop - rows.start), cache.config.windows[layer]
        whole = max(cache.offsets[rows]) <= first and (window is None or window >= length)
        return whole and (length > LONG or u.dtype == torch.float32)

    def _prompt_attention(
        self,
        u: Tensor,
        keys: Tensor,
        values: Tensor,
        cache: Cache,
        layer: int,
        rows: slice,
        first: int,
        *,
        rotated: bool,
    ) -> None:
        """Attention in place of the queries, to rotated keys and values [B, KV, T, E] of positions ``first`` ..."""
        config, batch = cache.config, rows.stop - rows.start
        length, width = len(u) // batch, config.head_width
        if self._by_library(u, cache, layer, rows, first):
            query = query_columns(u, cache).unflatten(0, (batch, length)).unflatten(2, (config.heads, -1))
            query.copy_(attend(query.transpose(1, 2), keys, values, Mask(causal=True)).view(query.shape))
            return
        queries, block, warps, stages = self.prompt_tile
        if u.dtype == torch.float32:  # larger ones take minutes to compile
            queries, block = (min(size, 16 if width > 128 else 32) for size in (queries, block))
        attention_kernels.prompt_attention_kernel[(triton.cdiv(length, queries) * config.heads * batch,)](
            u, u.stride(0), keys, values, keys.stride(0), keys.stride(1), cache.starts[rows],
            None if rotated else cache.cosine, None if rotated else cache.sine,
            length, first, config.windows[layer] or length, width**-0.5,
            KV=config.kv_heads, G=config.heads // config.kv_heads, E=width, ROTARY=config.rotary_width,
            BQ=queries, BT=block, PRECISION=_precision(u), num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def store(self, u: Tensor, cache: Cache, layer: int, rows: slice, first: int) -> None:
        self._rotate_and_store(u, cache, layer, rows, first, queries=False)

    def _rotate_and_store(
        self, u: Tensor, cache: Cache, layer: int, rows: slice, first: int, *, queries: bool
    ) -> tuple[Tensor, Tensor]:
        """Keys and values [B, KV, T, E] of positions ``first`` ..., stored; with ``queries`` these are rotated too."""
        config, block, batch = cache.config, 32, rows.stop - rows.start
        length, heads = len(u) // batch, config.heads if queries else config.kv_heads
        last = first + length
        keys, values = self._places(cache, layer, rows, last)
        attention_kernels.rotate_and_store_kernel[(triton.cdiv(len(u), block), heads)](
            u, u.stride(0), keys, values, cache.cosine, cache.sine,
            len(u), length, first, keys.shape[2], KV=config.kv_heads,
            E=config.head_width, ROTARY=config.rotary_width, QUERIES=queries, BM=block, num_warps=4,
        )  # fmt: skip
        keys, values = keys[:, :, first:last], values[:, :, first:last]
        if last > cache.rooms[layer]:
            cache.keep(keys, values, layer, rows, first)
        return keys, values

    def _places(self, cache: Cache, layer: int, rows: slice, last: int) -> tuple[Tensor, Tensor]:
        """Keys and values [B, KV, room, E] of samples in the cache, or where ``last`` do not fit, of as many."""
        keys, values = cache.keys[layer][rows], cache.values[layer][rows]
        if last <= cache.rooms[layer]:
            return keys, values
        shape = (len(keys), cache.config.kv_heads, last, cache.config.head_width)
        return keys.new_empty(shape), values.new_empty(shape)


def _small(x: Tensor) -> bool:
    return x.shape[0] < SMALL or x.dtype == torch.float32


def _tiles(tensor: Tensor, *shape: int) -> TensorDescriptor:
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), list(shape))


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else "tf32"


def _padded_group(config: StackConfig) -> int:
    """Query heads a key head serves, padded to the smallest tile of a matrix product."""
    return max(16, triton.next_power_of_2(config.heads // config.kv_heads))
