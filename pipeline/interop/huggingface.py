"""Hugging Face's models in and out: GPT-NeoX (Pythia), Llama (SmolLM), Qwen3. Reads and writes their files alone.

transformers is needed for GGUF files only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.base.files import read_json, replacing, write_json
from pipeline.interop.gguf import gguf_file, unpacked
from pipeline.interop.llama import llama_entries, llama_values, read_llama, read_qwen3
from pipeline.interop.names import Entry, read_into, require_neox, require_untied, write_from
from pipeline.interop.published import vanilla_entries
from pipeline.interop.published_config import neox_stack_config, neox_values
from pipeline.models.checkpoint import CONFIG, WEIGHTS, read_weights
from pipeline.models.config import LlamaConfig, ModelConfig, VanillaConfig
from pipeline.models.factory import build
from pipeline.models.language_model import LanguageModel

Json = dict[str, Any]
INDEX = "model.safetensors.index.json"
FILES = [CONFIG, "*.safetensors", INDEX, "tokenizer.json"]


@dataclass(frozen=True)
class Form:
    """A kind of model at Hugging Face: its class there, its configuration keys in and out, its table of names."""

    architecture: str
    read: Callable[[Mapping[str, Any]], VanillaConfig]
    write: Callable[[VanillaConfig], Json]
    entries: Callable[[VanillaConfig], list[Entry]]


def _read_neox(values: Mapping[str, Any]) -> VanillaConfig:
    return VanillaConfig(values["vocab_size"], values["max_position_embeddings"], neox_stack_config(values))


def _write_neox(config: VanillaConfig) -> Json:
    require_neox(config.stack, "model")
    require_untied(config.tied, "model")
    plain = {"hidden_act": "gelu", "use_parallel_residual": True, "attention_bias": True, "tie_word_embeddings": False}
    return neox_values(config.stack, config.vocabulary) | plain


FORMS = {
    "gpt_neox": Form("GPTNeoXForCausalLM", _read_neox, _write_neox, vanilla_entries),
    "llama": Form("LlamaForCausalLM", read_llama, llama_values, llama_entries),
    "qwen3": Form("Qwen3ForCausalLM", read_qwen3, llama_values, llama_entries),
}
"""By ``model_type``."""


def huggingface_values(config: ModelConfig) -> Json:
    """The ``config.json`` of a vanilla model of ``config`` there, token ids and dtype aside.

    Raises :class:`UserError` for what no model there can express: block transformers, windows, GPT-NeoX layers with
    grouped queries or tied tables.
    """
    if not isinstance(config, VanillaConfig):
        raise UserError(f"only vanilla models can be written for transformers; this one is a {config.family} model")
    kind = "gpt_neox"
    if isinstance(config.stack, LlamaConfig):
        kind = "qwen3" if config.stack.query_key_norm else "llama"
    kinds = {"architectures": [FORMS[kind].architecture], "model_type": kind}
    return FORMS[kind].write(config) | kinds | {"max_position_embeddings": config.context_length}


def from_huggingface(folder_or_name: Path | str) -> LanguageModel:
    """The vanilla model in a folder of Hugging Face files or on the hub, or of a folder's one GGUF file.

    Weights have the dtype of the files; a GGUF file's become fp32. Raises :class:`UserError` for other architectures,
    and for files that are missing or damaged or do not fit.
    """
    with located(folder_or_name) as folder:
        form, config = _config(folder)
        model = build(config, device="meta")
        read_into(model, form.entries(config), _weights(folder), source=folder)
        return model.eval()


def to_huggingface(model: LanguageModel, folder: Path | str, end_of_text: int = 0) -> None:
    """Write a vanilla model as the files that transformers' ``AutoModelForCausalLM.from_pretrained`` loads.

    Raises :class:`UserError`, as :func:`huggingface_values` does.
    """
    values, config = huggingface_values(model.config), model.config
    assert isinstance(config, VanillaConfig)
    entries = FORMS[values["model_type"]].entries(config)
    tensors = {name: tensor.cpu() for name, tensor in write_from(model, entries).items()}
    if config.tied:
        del tensors["lm_head.weight"]  # transformers ties it again
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    folder = Path(folder)
    with replacing(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    values |= {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "torch_dtype": dtype}
    write_json(folder / CONFIG, values)


@contextmanager
def located(folder_or_name: Path | str) -> Iterator[Path]:
    """The folder of the model's files, fetched from the hub where it is no folder here. Raises :class:`UserError`.

    A GGUF file's are made of it, and gone afterwards.
    """
    folder = _folder(folder_or_name)
    packed = gguf_file(folder)
    if packed is None:
        yield folder
    else:
        with unpacked(packed) as made:
            yield made


def _folder(folder_or_name: Path | str) -> Path:
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


def _config(folder: Path) -> tuple[Form, VanillaConfig]:
    values = read_json(folder / CONFIG)
    kind = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in FORMS:
        known = ", ".join(FORMS)
        raise UserError(f"{folder / CONFIG}: model_type {kind!r} is not supported; it is one of {known}")
    try:
        return FORMS[kind], FORMS[kind].read(values)
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
