"""Hugging Face's GPT-NeoX models (Pythia), in and out. Reads and writes their files; transformers is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.base.files import read_json, replacing, write_json
from pipeline.interop.names import read_into, require_neox, write_from
from pipeline.interop.published import vanilla_entries
from pipeline.interop.published_config import neox_stack_config, neox_values
from pipeline.models.checkpoint import CONFIG, WEIGHTS, read_weights
from pipeline.models.config import VanillaConfig
from pipeline.models.factory import build
from pipeline.models.language_model import LanguageModel

INDEX = "model.safetensors.index.json"
FILES = [CONFIG, "*.safetensors", INDEX, "tokenizer.json"]


def from_huggingface(folder_or_name: Path | str) -> LanguageModel:
    """The vanilla model in a folder of Hugging Face files, or on the hub, with weights in the dtype of the files.

    Raises :class:`UserError` for other architectures, and for files that are missing or damaged or do not fit.
    """
    folder = locate(folder_or_name)
    model = build(_config(folder), device="meta")
    assert isinstance(model.config, VanillaConfig)
    read_into(model, vanilla_entries(model.config), _weights(folder), source=folder)
    return model.eval()


def to_huggingface(model: LanguageModel, folder: Path | str, end_of_text: int = 0) -> None:
    """Write a vanilla model as the files that ``GPTNeoXForCausalLM.from_pretrained`` loads.

    Raises :class:`UserError` for what GPT-NeoX cannot express: block transformers, grouped queries, windows.
    """
    config = model.config
    if not isinstance(config, VanillaConfig):
        raise UserError(f"only vanilla models can be written as GPT-NeoX; this one is a {config.family} model")
    require_neox(config.stack, "model")
    tensors = {name: tensor.cpu() for name, tensor in write_from(model, vanilla_entries(config)).items()}
    values = neox_values(config.stack, config.vocabulary) | {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "max_position_embeddings": config.context_length,
        "hidden_act": "gelu",
        "use_parallel_residual": True,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": str(next(iter(tensors.values())).dtype).removeprefix("torch."),
    }
    folder = Path(folder)
    with replacing(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_json(folder / CONFIG, values)


def locate(folder_or_name: Path | str) -> Path:
    """The folder of the model's files, fetched from the hub where it is no folder here. Raises :class:`UserError`."""
    folder = Path(folder_or_name)
    if folder.is_dir():
        return folder
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(folder_or_name), allow_patterns=FILES))
    except ImportError:
        problem = "huggingface_hub is not installed"
    except Exception as error:  # the hub's client raises its own errors, requests' and ValueError
        problem = " ".join(str(error).split())
    raise UserError(f"{folder_or_name}: no such folder, and it could not be fetched from the hub ({problem})")


def _config(folder: Path) -> VanillaConfig:
    values = read_json(folder / CONFIG)
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind != "gpt_neox":
        raise UserError(f"{folder / CONFIG}: model_type {kind!r} is not supported; gpt_neox (Pythia) is")
    try:
        return VanillaConfig(values["vocab_size"], values["max_position_embeddings"], neox_stack_config(values))
    except KeyError as error:
        raise UserError(f"{folder / CONFIG}: the key {error} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / CONFIG}: {error}") from None


def _weights(folder: Path) -> dict[str, Tensor]:
    if not (folder / INDEX).exists():
        return read_weights(folder / WEIGHTS)
    index: Any = read_json(folder / INDEX)
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        raise UserError(f"{folder / INDEX}: it has no weight_map from tensor to file")
    weights: dict[str, Tensor] = {}
    for shard in sorted(set(index["weight_map"].values())):
        weights |= read_weights(folder / Path(shard).name)
    return weights
