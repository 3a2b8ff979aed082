"""Parameter names and layouts of other code, as a table that reads both ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.models.checkpoint import assign, check_names
from pipeline.models.config import LayersConfig, StackConfig
from pipeline.models.language_model import LanguageModel

BUFFERS = re.compile(r".*\.(attention\.(bias|masked_bias)|rotary_emb\.(inv_freq|cos_cached|sin_cached))")


@dataclass(frozen=True)
class Entry:
    """One of our parameters and the tensors that hold it elsewhere.

    ``read`` makes ours from theirs, ``write`` theirs from ours. ``copies``: each of theirs is the whole, and one of
    them is enough.
    """

    ours: str
    theirs: tuple[str, ...]
    read: Callable[[list[Tensor]], Tensor]
    write: Callable[[Tensor], Sequence[Tensor]]
    copies: bool = False


def same(ours: str, theirs: str) -> Entry:
    """One parameter under two names."""
    return Entry(ours, (theirs,), lambda tensors: tensors[0], lambda tensor: [tensor])


def copied(ours: str, theirs: Sequence[str]) -> Entry:
    """One parameter that they store several times."""
    return Entry(ours, tuple(theirs), lambda tensors: tensors[0], lambda tensor: [tensor.clone() for _ in theirs], True)


def joined(ours: str, theirs: Sequence[str], rows: Sequence[int]) -> Entry:
    """Ours is theirs one below the other, with those numbers of rows."""
    return Entry(ours, tuple(theirs), torch.cat, lambda tensor: torch.split(tensor, list(rows)))


def convolution(ours: str, theirs: str, kernel: int) -> Entry:
    """Our linear weight [outputs, kernel * inputs] is their convolution's [outputs, inputs, kernel]."""
    return Entry(
        ours,
        (theirs,),
        lambda tensors: tensors[0].transpose(1, 2).flatten(1),
        lambda tensor: [tensor.view(len(tensor), kernel, -1).transpose(1, 2)],
    )


def per_head(ours: str, theirs: str, heads: int) -> Entry:
    """Ours has all query rows, then key, then value rows; theirs has query, key and value head by head."""

    def read(tensors: list[Tensor]) -> Tensor:
        rows = tensors[0].view(heads, 3, -1, *tensors[0].shape[1:])
        return rows.transpose(0, 1).flatten(0, 2)

    def write(tensor: Tensor) -> list[Tensor]:
        rows = tensor.view(3, heads, -1, *tensor.shape[1:])
        return [rows.transpose(0, 1).flatten(0, 2)]

    return Entry(ours, (theirs,), read, write)


def neox_stack(ours: str, theirs: str, config: StackConfig) -> list[Entry]:
    """The layers and final norm of a GPT-NeoX stack without grouped queries."""
    pairs = {
        "attention_norm": "input_layernorm",
        "attention_output": "attention.dense",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward_in": "mlp.dense_h_to_4h",
        "feed_forward_out": "mlp.dense_4h_to_h",
    }
    entries = []
    for layer in range(config.layers):
        mine, other = f"{ours}.layers.{layer}", f"{theirs}.layers.{layer}"
        for kind in ("weight", "bias"):
            packed = f"{other}.attention.query_key_value.{kind}"
            entries.append(per_head(f"{mine}.query_key_value.{kind}", packed, config.heads))
            entries += [same(f"{mine}.{name}.{kind}", f"{other}.{pairs[name]}.{kind}") for name in pairs]
    return entries + [same(f"{ours}.norm.{kind}", f"{theirs}.final_layer_norm.{kind}") for kind in ("weight", "bias")]


def require_neox(config: LayersConfig, what: str) -> None:
    """Raise :class:`UserError` for what the other code's GPT-NeoX stack cannot express."""
    if isinstance(config, StackConfig) and config.layer != "neox":
        raise UserError(f"{what}: layers of the kind {config.layer} cannot be exported; those of GPT-NeoX can")
    if config.kv_heads != config.heads:
        raise UserError(
            f"{what}: kv_heads {config.kv_heads} cannot be exported; GPT-NeoX has as many as heads, {config.heads}"
        )
    if isinstance(config, StackConfig) and config.window is not None:
        raise UserError(f"{what}: window {config.window} cannot be exported; GPT-NeoX attends to all positions")


def require_untied(tied: bool, what: str) -> None:
    """Raise :class:`UserError` where the vocabulary has one table for inputs and outputs."""
    if tied:
        raise UserError(f"{what}: tied tables cannot be exported; GPT-NeoX has a table of inputs and one of outputs")


def read_into(
    model: LanguageModel,
    entries: Iterable[Entry],
    state: Mapping[str, Tensor],
    ignored: Iterable[str] = (),
    source: Path | str = "state dict",
) -> None:
    """Give ``model`` (which may be on ``meta``) the weights of ``state``.

    Buffers that older files carry and the ``ignored`` names are passed over. Raises :class:`UserError` for missing
    and unknown names, and for shapes that do not fit, before anything is changed.
    """
    entries, ignored = list(entries), set(ignored)
    state = {name: tensor for name, tensor in state.items() if name not in ignored and not BUFFERS.fullmatch(name)}
    _check(model, entries, state, source)
    weights = {}
    for entry in entries:
        weights[entry.ours] = entry.read([state[name] for name in entry.theirs if name in state]).contiguous().clone()
    assign(model, weights, source)


def write_from(model: LanguageModel, entries: Iterable[Entry]) -> dict[str, Tensor]:
    """The weights of ``model`` under their names and in their layouts."""
    weights = model.state_dict()
    return {
        name: tensor.detach().contiguous().clone()
        for entry in entries
        for name, tensor in zip(entry.theirs, entry.write(weights[entry.ours]), strict=True)
    }


def _check(model: LanguageModel, entries: list[Entry], state: Mapping[str, Tensor], source: Path | str) -> None:
    ours = model.state_dict()
    assert {entry.ours for entry in entries} == ours.keys(), "the table does not cover the model"
    expected: dict[str, Tensor] = {}
    for entry in entries:
        theirs = dict(zip(entry.theirs, entry.write(ours[entry.ours].to("meta")), strict=True))
        if entry.copies:
            theirs = {name: tensor for name, tensor in theirs.items() if name in state} or theirs
        expected |= theirs
    check_names(state, expected, source)
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            shapes = f"{list(state[name].shape)}, but this model needs {list(tensor.shape)}"
            raise UserError(f"{source}: {name} has shape {shapes}")
        if not state[name].is_floating_point():
            raise UserError(f"{source}: {name} holds {state[name].dtype}; weights are floating point numbers")
    for entry in entries:
        copies = [state[name] for name in entry.theirs if name in state] if entry.copies else []
        if any(not torch.equal(copy, copies[0]) for copy in copies):
            raise UserError(f"{source}: {' and '.join(entry.theirs)} should be equal, but differ")
