"""Models trained elsewhere as cells of a study."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from pipeline.base.errors import UserError
from pipeline.interop.huggingface import to_huggingface
from pipeline.interop.pretrained import bring_in
from pipeline.models import build, checkpoint
from pipeline.models.config import StackConfig, VanillaConfig
from pipeline.study.schema import Pretrained
from tests.fixture import read, write_tokenizer
from tests.models.test_models import lively, random_tokens


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def published(folder: Path, **keys: object) -> None:
    fixture = read("prefix")
    folder.mkdir()
    (folder / "block.yaml").write_text(yaml.safe_dump(fixture.config | keys))
    write_tokenizer(folder / "tokenizer.json")
    save_file(fixture.state_dict, folder / "model.safetensors")


def test_a_published_model() -> None:
    published(Path("elsewhere"))
    result = bring_in("block_tiny", Pretrained("elsewhere", "published"))
    model, record = checkpoint.load("checkpoints/block_tiny")
    fixture = read("prefix")
    tokens = fixture["clean/input_ids"].flatten(1)
    torch.testing.assert_close(model(tokens), fixture["clean/logits"].flatten(1, 2), rtol=0, atol=1e-5)
    assert (result.cell.family, result.cell.block_length, result.cell.name) == ("block", 4, "block_tiny")
    assert result.total_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (result.train_loss, result.validation_loss, result.steps) == (None, None, 0)
    assert record["fingerprint"] == result.cell.fingerprint
    assert Path("checkpoints/block_tiny/tokenizer.json").read_bytes() == Path("elsewhere/tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("keys", "stated", "padding"),
    [
        ({}, None, False),
        ({"random_pad_first_block": True}, None, True),
        ({"random_pad_first_block": True}, False, False),
    ],
)
def test_whether_it_saw_padding(keys: dict[str, object], stated: bool | None, padding: bool) -> None:
    published(Path("elsewhere"), **keys)
    bring_in("m", Pretrained("elsewhere", "published", padding=stated))
    _, record = checkpoint.load("checkpoints/m")
    assert record["pretrain"]["padding"] is padding


def test_a_hugging_face_model_with_the_studys_tokenizer() -> None:
    model = lively("vanilla")
    to_huggingface(model, "pythia")
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file"):
        bring_in("pythia_tiny", Pretrained("pythia"))
    Path("data/tokens").mkdir(parents=True)
    write_tokenizer(Path("data/tokens/tokenizer.json"))
    result = bring_in("pythia_tiny", Pretrained("pythia", size="s"))
    again, _ = checkpoint.load("checkpoints/pythia_tiny")
    assert torch.equal(again(random_tokens(2, 9)), model(random_tokens(2, 9)))
    assert (result.cell.family, result.cell.block_length, result.cell.size) == ("vanilla", None, "s")
    copied = Path("checkpoints/pythia_tiny/tokenizer.json")
    assert copied.read_bytes() == Path("data/tokens/tokenizer.json").read_bytes()


def test_a_broken_source_replaces_nothing() -> None:
    published(Path("elsewhere"))
    bring_in("m", Pretrained("elsewhere", "published"))
    before = Path("checkpoints/m/model.safetensors").read_bytes()
    Path("elsewhere/model.safetensors").write_bytes(before[:-10])
    with pytest.raises(UserError, match="not a complete safetensors file"):
        bring_in("m", Pretrained("elsewhere", "published"))
    assert Path("checkpoints/m/model.safetensors").read_bytes() == before


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 52428800\n"
FOREIGN = {
    "LFS": (POINTER, "a Git LFS pointer, not the file itself; `git lfs pull` fetches it"),
    "annex": (b"/annex/objects/SHA256E-s5--ab.safetensors\n", "a git-annex pointer"),
    "page": (b"\n<!DOCTYPE html>\n<html>Sign in</html>", "a web page, not the file itself"),
    "HTML": (b"<HTML><body>404</body></HTML>", "a web page, not the file itself"),
    "torch": (b"PK\x03\x04" + bytes(60), "a zip archive, as torch.save writes"),
    "pickle": (b"\x80\x02}q\x00.", "a pickle, which may run code and is not read"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(20), "compressed by gzip"),
    "GGUF": (b"GGUF\x03\x00\x00\x00", "a GGUF file"),
    "empty": (b"", "empty; was a download or a copy cut off?"),
    "zeros": (bytes(64), "not a complete safetensors file"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_another_file_in_place_of_the_weights_is_called_what_it_is(kind: str) -> None:
    content, told = FOREIGN[kind]
    published(Path("elsewhere"))
    Path("elsewhere/model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=rf"^elsewhere/model.safetensors: {re.escape(told)}"):
        bring_in("m", Pretrained("elsewhere", "published"))
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "block.yaml"])
def test_every_file_of_a_model_may_be_a_pointer(name: str) -> None:
    kind = "published" if name == "block.yaml" else "huggingface"
    if kind == "published":
        published(Path("elsewhere"))
    else:
        to_huggingface(lively("vanilla"), "elsewhere")
        write_tokenizer(Path("elsewhere/tokenizer.json"))
    Path("elsewhere", name).write_bytes(POINTER)
    with pytest.raises(UserError, match=rf"^elsewhere/{name}: a Git LFS pointer"):
        bring_in("m", Pretrained("elsewhere", kind))
    assert not Path("checkpoints").exists()


def vocabulary_of(model_tokens: int, tokenizer_tokens: int) -> None:
    """A model of so many tokens, in ``pythia``, and a tokenizer of so many beside it."""
    to_huggingface(build(VanillaConfig(model_tokens, 64, StackConfig(1, 32, 1, 1, 64))), "pythia")
    tokenizer = Tokenizer(
        models.WordLevel({f"t{number}": number for number in range(tokenizer_tokens)}, unk_token="t0")
    )
    tokenizer.save("pythia/tokenizer.json")


LARGER = [(384, 400), (384, 385), (1, 2), (257, 258), (2, 300), (511, 512), (1000, 4096), (4096, 4097)]


@pytest.mark.parametrize(("model_tokens", "tokenizer_tokens"), LARGER)
def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(model_tokens: int, tokenizer_tokens: int) -> None:
    vocabulary_of(model_tokens, tokenizer_tokens)
    told = f"token ids up to {tokenizer_tokens - 1}, but the model's vocabulary .vocab_size. is {model_tokens}; put"
    with pytest.raises(UserError, match=f"^pythia/tokenizer.json: it has {told}"):
        bring_in("m", Pretrained("pythia"))
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(("model_tokens", "tokenizer_tokens"), [(384, 384), (384, 300), (50304, 50277)])
def test_a_table_with_more_rows_than_tokens_is_padding(model_tokens: int, tokenizer_tokens: int) -> None:
    vocabulary_of(model_tokens, tokenizer_tokens)
    assert bring_in("m", Pretrained("pythia")).cell.family == "vanilla"


def test_an_added_token_counts_and_so_does_the_studys_own_tokenizer() -> None:
    vocabulary_of(384, 384)
    tokenizer = Tokenizer.from_file("pythia/tokenizer.json")
    tokenizer.add_special_tokens(["<|one more|>"])
    tokenizer.save("pythia/tokenizer.json")
    with pytest.raises(UserError, match=r"^pythia/tokenizer.json: it has token ids up to 384"):
        bring_in("m", Pretrained("pythia"))
    Path("data/tokens").mkdir(parents=True)
    Path("pythia/tokenizer.json").rename("data/tokens/tokenizer.json")
    with pytest.raises(UserError, match=r"^data/tokens/tokenizer.json: it has token ids up to 384"):
        bring_in("m", Pretrained("pythia"))
