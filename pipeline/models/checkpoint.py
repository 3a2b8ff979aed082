"""Checkpoint folders: ``model.safetensors`` beside the ``config.json`` that rebuilds the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.base.errors import UserError
from pipeline.base.files import foreign, read_object, replacing, write_json
from pipeline.models.config import from_dict, to_dict
from pipeline.models.factory import build
from pipeline.models.language_model import LanguageModel

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def save(folder: Path | str, model: LanguageModel, extra: dict[str, Any]) -> None:
    """Write ``model`` into ``folder``; ``extra`` joins ``model`` in ``config.json`` (cell, fingerprint, ...)."""
    save_weights(folder, model)
    save_config(folder, model, extra)


def save_weights(folder: Path | str, model: LanguageModel) -> None:
    """Write ``model.safetensors``, whole or not at all."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    with replacing(Path(folder) / WEIGHTS) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})


def save_config(folder: Path | str, model: LanguageModel, extra: dict[str, Any]) -> None:
    """Write ``config.json``: the model's configuration, and ``extra`` beside it."""
    write_json(Path(folder) / CONFIG, {"model": to_dict(model.config), **extra})


class Undrawn(TorchFunctionMode):
    """Leaves out initial draws: on ``meta`` there is nothing to draw, yet torch imports its compiler for it (1.5 s)."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def load(
    folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[LanguageModel, dict[str, Any]]:
    """The model of a checkpoint folder, in evaluation mode, and the content of its ``config.json``.

    ``dtype`` converts the weights. Raises :class:`UserError` for files that are missing, damaged, or do not fit.
    """
    folder = Path(folder)
    config = read_object(folder / CONFIG)
    try:
        with Undrawn():
            model = build(from_dict(config["model"]), device="meta")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CONFIG}: no model configuration ({error})") from None
    assign(model, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return model.to(device=device, dtype=dtype).eval(), config


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises :class:`UserError` where it is absent, truncated or another format."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: {foreign(path) or f'not a complete safetensors file ({error})'}") from None


def assign(model: LanguageModel, weights: Mapping[str, Tensor], source: Path | str) -> None:
    """Give ``model`` (which may be on ``meta``) all its ``weights``, or raise :class:`UserError` and change nothing."""
    expected = model.state_dict()
    check_names(weights, expected, source)
    for name, weight in weights.items():
        if weight.shape != expected[name].shape:
            raise UserError(
                f"{source}: {name} has shape {list(weight.shape)}, but this model needs {list(expected[name].shape)}"
            )
        if not weight.is_floating_point():
            raise UserError(f"{source}: {name} holds {str(weight.dtype).removeprefix('torch.')}, not floats")
    model.load_state_dict(dict(weights), assign=True)
    model.requires_grad_(True)


def check_names(found: Mapping[str, Any], expected: Mapping[str, Any], source: Path | str) -> None:
    """Raise :class:`UserError` unless both hold the same tensor names."""
    for problem, names in (("missing", expected.keys() - found.keys()), ("unknown", found.keys() - expected.keys())):
        if names:
            some = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise UserError(f"{source}: {len(names)} {problem} tensors: {some}")
