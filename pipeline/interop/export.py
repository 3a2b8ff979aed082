"""A model as a folder that transformers loads: as one of its own classes, or with our code beside the weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.base.files import write_json
from pipeline.interop.huggingface import huggingface_values, to_huggingface
from pipeline.models.checkpoint import CONFIG, save_weights
from pipeline.models.config import BlockConfig, ModelConfig, StackConfig, to_dict
from pipeline.models.language_model import LanguageModel

CODE = Path(__file__).parent / "remote_code"
MODELING, LAYERS = "modeling_blockscale.py", "layers_blockscale.py"
CLASSES = {"vanilla": "VanillaTransformerForCausalLM", "block": "BlockTransformerForCausalLM"}
CODED = {
    "embedder.kind": {"lookup", "projection", "roberta", "cls"},
    "token_decoder.kind": {"prefix", "summation", "cross_attention"},
    "layer.kind": {"neox", "llama"},
}
"""The kinds that the code in ``remote_code/`` knows, by their keys in a study."""


@dataclass(frozen=True)
class Exported:
    """What a folder holds: ``architecture`` is the class that transformers makes of it, ``code`` whether it is ours."""

    architecture: str
    code: bool


def export_model(model: LanguageModel, folder: Path, end_of_text: int, padded: bool) -> Exported:
    """Write weights, ``config.json``, ``generation_config.json`` and, where transformers has no such class, the code.

    ``padded``: whether a block transformer saw random-length padding in training. Raises :class:`UserError` for a kind
    of part that neither transformers nor the code knows.
    """
    plain = _has_class(model.config)
    if plain:
        to_huggingface(model, folder, end_of_text)
    else:
        _require_code(model.config)
        _write_with_code(model, folder, end_of_text, padded)
    tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end_of_text)
    write_json(folder / "generation_config.json", tokens | ({} if plain else {"use_cache": False}))
    return Exported(huggingface_values(model.config)["architectures"][0] if plain else _class(model), not plain)


def export_tokenizer(tokenizer: Path, folder: Path, end_of_text: str, context_length: int) -> None:
    """Write what ``AutoTokenizer`` loads. Prompts are padded on the left, as generation needs them."""
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    tokens = dict.fromkeys(("bos_token", "eos_token", "pad_token"), end_of_text)
    sides = {"padding_side": "left", "model_max_length": context_length, "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **tokens, **sides})


def _has_class(config: ModelConfig) -> bool:
    """Whether transformers has a class of its own for such a model."""
    try:
        huggingface_values(config)
    except UserError:
        return False
    return True


def _class(model: LanguageModel) -> str:
    return CLASSES[model.config.family]


def _write_with_code(model: LanguageModel, folder: Path, end_of_text: int, padded: bool) -> None:
    """Names and layouts of the weights are ours, and so is the key ``model`` of ``config.json``."""
    save_weights(folder, model)
    for name in (MODELING, LAYERS):
        shutil.copyfile(CODE / name, folder / name)
    module, config = MODELING.removesuffix(".py"), model.config
    values: dict[str, Any] = {
        "architectures": [_class(model)],
        "auto_map": {"AutoConfig": f"{module}.BlockscaleConfig", "AutoModelForCausalLM": f"{module}.{_class(model)}"},
        "model_type": "blockscale",
        "model": to_dict(config),
        "padding": padded,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context_length,
        "tie_word_embeddings": False,  # the code ties tables itself
        "torch_dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
    }
    write_json(folder / CONFIG, values | dict.fromkeys(("bos_token_id", "eos_token_id"), end_of_text))


def _require_code(config: ModelConfig) -> None:
    for key, kind in _kinds(config):
        if kind not in CODED[key]:
            known = ", ".join(sorted(CODED[key]))
            raise UserError(f"{key} {kind} cannot be exported: {CODE.name}/ has no code for it, only for {known}")


def _kinds(config: ModelConfig) -> Iterator[tuple[str, str]]:
    if isinstance(config, BlockConfig):
        yield "embedder.kind", config.embedder.kind
        yield "token_decoder.kind", config.token_decoder.kind
    for stack in config.decoders:
        if isinstance(stack, StackConfig):
            yield "layer.kind", stack.layer
