"""No reader follows a name that stands in data, and no name in params.yaml leaves its folder.

Beside each folder that is read lies a file that a name from inside would lead to, whole and of the right format.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import save_file
from torch import Tensor

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.base.files import read_json, write_json
from pipeline.data import read_documents, write_corpus
from pipeline.data.sources import read_source
from pipeline.data.tokenizer import open_tokenizer, train_tokenizer
from pipeline.evaluation.task_names import check_tasks
from pipeline.interop.huggingface import INDEX, from_huggingface, to_huggingface
from pipeline.interop.pretrained import bring_in
from pipeline.models import build, initialise
from pipeline.study import load_study
from pipeline.study.schema import Corpus, Pretrained
from tests.fixture import write_tokenizer
from tests.test_corruption import CONFIG, GOOD, TEXTS, parquet

SECRET = "a secret that is not of the corpus"
OUTSIDE = [
    "../x",
    "..",
    ".",
    "/",
    "/etc/x",
    "a/../../x",
    "~/x",
    "a\\..\\x",
    "./x",
    "a/b",
    "c:x",
    "-x",
    ".x",
    "x\n",
    "x\x00",
]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory inside of another, in which lies what must not be read."""
    folder = tmp_path / "inside"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, content in {
        "x.jsonl": json.dumps({"text": SECRET}).encode(),
        "x.parquet": parquet([SECRET] * len(TEXTS)),
        "x.txt": SECRET.encode(),
    }.items():
        (tmp_path / name).write_bytes(content)
    return folder


def outside(inside: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in inside.parent.iterdir() if path.is_file()}


def texts(name: str) -> list[str]:
    return [document.text for document in read_source(Corpus(source="files", files=[name]))]


def test_the_name_in_a_gzip_header_is_not_used(inside: Path) -> None:
    before = outside(inside)
    packed = io.BytesIO()
    with gzip.GzipFile("../x.jsonl", "wb", fileobj=packed) as opened:
        opened.write(GOOD)
    assert b"x.jsonl\x00" in packed.getvalue()
    renamed = packed.getvalue().replace(b"x.jsonl\x00", b"../x.jsonl\x00", 1)
    for content in (packed.getvalue(), renamed):
        Path("a.jsonl.gz").write_bytes(content)
        assert texts("a.jsonl.gz") == TEXTS
    assert outside(inside) == before
    assert [path.name for path in inside.iterdir()] == ["a.jsonl.gz"]


def test_a_column_chunk_that_names_another_file_is_not_followed(inside: Path) -> None:
    """.parquet has a field for the file that a column lies in."""
    content = parquet(TEXTS)
    metadata = pq.ParquetFile(io.BytesIO(content)).metadata
    metadata.set_file_path("../x.parquet")
    footer = io.BytesIO()
    metadata.write_metadata_file(footer)
    size = int.from_bytes(content[-8:-4], "little")
    Path("a.parquet").write_bytes(content[: -8 - size] + footer.getvalue()[4:])
    assert pq.ParquetFile("a.parquet").metadata.row_group(0).column(0).file_path == "../x.parquet"
    assert texts("a.parquet") == TEXTS


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz"])
def test_archives_of_files_are_not_unpacked(inside: Path, name: str) -> None:
    """A tar or zip under an ending of ours: refused, or the text that it is; no member is written."""
    before = outside(inside)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("../x.txt")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("../x.txt", "evil")
    for content in (packed.getvalue(), zipped.getvalue()):
        Path(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        with suppress(UserError):
            assert "evil" not in texts(name)
        assert outside(inside) == before
        assert [path.name for path in inside.iterdir()] == [name]


def test_text_that_looks_like_a_path_stays_text() -> None:
    lines = [{"text": text} for text in ("../x.jsonl", "file:///etc/passwd", "!include ../x.jsonl", "@../x.jsonl")]
    Path("a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert texts("a.jsonl") == [line["text"] for line in lines]


def test_a_corpus_manifest_names_files_of_its_folder_alone() -> None:
    Path("good.jsonl").write_bytes(GOOD)
    write_corpus(Corpus(source="files", files=["good.jsonl"]), paths.CORPUS)
    path = paths.CORPUS / "manifest.json"
    values = read_json(path)
    shutil.copy(paths.CORPUS / "test-00000.jsonl.zst", "x.jsonl.zst")
    for name in ("../../x.jsonl.zst", str(Path("x.jsonl.zst").resolve()), "..", ""):
        values["splits"]["test"]["files"] = [name]
        write_json(path, values)
        with pytest.raises(UserError, match=r"not a corpus manifest|Is a directory"):
            list(read_documents(paths.CORPUS, "test"))


@pytest.mark.parametrize("key", ["vocab", "merges"])
def test_a_tokenizer_that_names_files_is_refused(key: str) -> None:
    """Other tools keep paths there."""
    train_tokenizer(TEXTS, 280, "<|endoftext|>").save("tokenizer.json")
    values = read_json("tokenizer.json")
    Path("../x").write_text(json.dumps(values["model"][key]))
    values["model"][key] = "../x"
    write_json("tokenizer.json", values)
    with pytest.raises(UserError, match="not a tokenizer of the tokenizers library"):
        open_tokenizer(Path("tokenizer.json"))


def model(folder: str) -> dict[str, Tensor]:
    """Hugging Face's files of a model; its weights."""
    made = build(CONFIG)
    initialise(made, 0)
    to_huggingface(made, folder)
    write_tokenizer(Path(folder, "tokenizer.json"))
    return dict(made.state_dict())


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "shards/../../x.safetensors"])
def test_a_weight_index_names_files_of_its_folder_alone(inside: Path, name: str) -> None:
    model("elsewhere")
    target = inside / "x.safetensors"
    shutil.move("elsewhere/model.safetensors", target)
    Path("elsewhere/shards").mkdir()
    named = str(target) if name.startswith("/") else name
    write_json(Path("elsewhere") / INDEX, {"weight_map": {"gpt_neox.embed_in.weight": named}})
    with pytest.raises(UserError, match=r"elsewhere/x\.safetensors: no such file"):
        from_huggingface("elsewhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_link_in_a_models_folder_shows_and_copies_nothing_of_another_kind(inside: Path, name: str) -> None:
    """Links are followed, as the hub's cache is made of them; a file that is not what it stands for goes no further."""
    model("elsewhere")
    Path("elsewhere", name).unlink()
    Path("elsewhere", name).symlink_to(inside.parent / "x.txt")
    with pytest.raises(UserError, match=re.escape(f"elsewhere/{name}")) as caught:
        bring_in("m", Pretrained("elsewhere"))
    assert SECRET not in str(caught.value)
    kept = [path for folder in ("checkpoints", "results") for path in Path(folder).rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


def test_weights_are_read_from_a_file_alone() -> None:
    """safetensors has no names of files; metadata that looks like one is left."""
    weights = model("elsewhere")
    save_file({"other": next(iter(weights.values()))}, "x.safetensors")
    content = Path("elsewhere/model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    header["__metadata__"] = {"format": "pt", "path": "../x.safetensors", "base_model": "../../x"}
    changed = json.dumps(header).encode()
    Path("elsewhere/model.safetensors").write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + size :])
    assert from_huggingface("elsewhere").state_dict().keys() == weights.keys()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: sotu", "name: NAME"),
        ("  s: {layers", "  NAME: {layers"),
        ("  base:", "  NAME:"),
        ("    decode_heavy:", "    NAME:"),
        ("pretrained: {}", "pretrained: {NAME: {path: elsewhere}}"),
    ],
)
def test_no_name_in_params_leaves_its_folder(params_text: str, old: str, new: str) -> None:
    assert old in params_text
    for name in OUTSIDE:
        Path("params.yaml").write_text(params_text.replace(old, new.replace("NAME", json.dumps(name)), 1))
        with pytest.raises(UserError) as caught:
            load_study()
        assert re.search("a name has letters, digits and '_'|a character that cannot be seen", str(caught.value))
    assert [path.name for path in Path().iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("name", ["..", "./x"])
def test_no_task_is_a_path(name: str) -> None:
    """lm-eval takes paths of task files too, which may name code to run."""
    with pytest.raises(UserError, match="is no task of lm-eval or of this project"):
        check_tasks([name])
