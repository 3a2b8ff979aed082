"""A language model's GGUF file (llama.cpp's), made a folder of Hugging Face's files: extra ``gguf``.

`python -m pipeline.interop.gguf SOURCE TARGET` makes such a folder for good.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.command import command
from pipeline.base.errors import UserError
from pipeline.base.files import replacing, write_json
from pipeline.models.checkpoint import CONFIG, WEIGHTS


@command
def main() -> None:
    """Make config.json, model.safetensors and tokenizer.json of the GGUF file of a folder."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.interop.gguf", description=main.__doc__)
    parser.add_argument("source", type=Path, help="a folder with one .gguf file, or the file")
    parser.add_argument("target", type=Path, help="the folder to write")
    arguments = parser.parse_args()
    file = arguments.source if arguments.source.suffix == ".gguf" else gguf_file(arguments.source)
    if file is None or not file.is_file():
        raise UserError(f"{arguments.source}: no GGUF file; name it, or a folder that holds one and no {CONFIG}")
    unpack(file, arguments.target)


def gguf_file(folder: Path) -> Path | None:
    """The one GGUF file of a folder that holds no other form of the model. Raises :class:`UserError` for several."""
    found = [] if (folder / CONFIG).exists() else sorted(folder.glob("*.gguf"))
    if len(found) > 1:
        raise UserError(f"{folder}: {len(found)} .gguf files; a model's folder holds one ({found[0].name}, ...)")
    return found[0] if found else None


@contextmanager
def unpacked(file: Path) -> Iterator[Path]:
    """A temporary folder of Hugging Face's files; errors as of :func:`unpack`."""
    with tempfile.TemporaryDirectory() as folder:
        unpack(file, Path(folder))
        yield Path(folder)


def unpack(file: Path, folder: Path) -> None:
    """Write config.json, model.safetensors (fp32) and tokenizer.json of a GGUF file.

    Raises :class:`UserError` where transformers or gguf are missing, or cannot read it.
    """
    for package in ("transformers", "gguf"):
        if find_spec(package) is None:
            raise UserError(f"{file}: it needs {package}, which is not installed; pip install 'blockscale[gguf]'")
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # its readers raise whatever the file makes them stumble over
        raise UserError(f"{file}: transformers cannot read it ({' '.join(str(error).split())[:300]})") from None
    weights, values = model.state_dict(), model.config.to_dict()
    if values.get("tie_word_embeddings"):
        weights.pop("lm_head.weight", None)
    values.pop("quantization_config", None)
    # Numbers of the file are fp32: 9.999999747378752e-06 stands for 1e-5.
    if "rms_norm_eps" in values:
        values["rms_norm_eps"] = float(str(np.float32(values["rms_norm_eps"])))
    with replacing(folder / WEIGHTS) as temporary:
        save_file({name: weight.contiguous() for name, weight in weights.items()}, temporary, metadata={"format": "pt"})
    with replacing(folder / "tokenizer.json") as temporary:
        tokenizer.backend_tokenizer.save(str(temporary))
    write_json(folder / CONFIG, values)


if __name__ == "__main__":
    main()
