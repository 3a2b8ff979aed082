"""Numbers made by running the published code (tests/fixtures): weights, inputs, outputs, gradients."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor

FOLDER = Path(__file__).parent / "fixtures"
DEAD = "block_decoder.gpt_neox.embed_in.weight"


@dataclass(frozen=True)
class Fixture:
    """``config`` is what the published YAML would hold; ``tensors`` everything by its path in the file."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def __getitem__(self, path: str) -> Tensor:
        return self.tensors[path]

    def under(self, folder: str) -> dict[str, Tensor]:
        prefix = folder + "/"
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}

    @property
    def state_dict(self) -> dict[str, Tensor]:
        return self.under("state_dict")


def read(name: str, sizes: str | None = None) -> Fixture:
    """A fixture by its name; ``sizes`` names the one whose configuration it shares."""
    spec = json.loads((FOLDER / f"{sizes or name}.json").read_text())
    return Fixture(_config(spec), load_file(FOLDER / f"{name}.safetensors"))


def write_tokenizer(path: Path) -> None:
    """One that knows no word, and so fits the smallest model."""
    Tokenizer(WordLevel({"<|endoftext|>": 0, "<|padding|>": 1}, unk_token="<|padding|>")).save(str(path))


def _config(spec: dict[str, Any]) -> dict[str, Any]:
    def values(part: str) -> dict[str, Any]:
        prefix = f"spec/{part}_config/"
        return {key.removeprefix(prefix): value for key, value in spec.items() if key.startswith(prefix)}

    lookup = spec["spec/embedder"] == "LookupEmbedder"
    embedder = {"cls": "lookup", "projection_method": "concat"} if lookup else {"cls": "roberta_cls", "n_cls_tokens": 3}
    return {
        "block_length": spec["spec/block_length"],
        "embedder": embedder | {"n_embedding_tokens": 1, "config": values("embedder")},
        "block_decoder": {"cls": "gpt-neo-x", "config": values("block_decoder")},
        "token_decoder": {
            "cls": "gpt-neo-x" if spec["spec/token_decoder"] == "GPTNeoXTokenDecoder" else "t5",
            "decoding_strategy": spec["spec/strategy"],
            "expansion_method": "expansion_layer",
            "expansion_ratio": spec["spec/expansion_ratio"],
            "config": values("token_decoder"),
        },
    }
