"""A damaged file is read as far as it is whole and its skips are counted, or refused in one line that names it."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import save_file

import tests.fixture
from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.data import PackedStream, TokenCorpus, model_vocabulary, read_documents, write_corpus
from pipeline.data.encoding import Encoder
from pipeline.data.foreign import foreign_split
from pipeline.data.indexed import IndexedFile, IndexedWriter
from pipeline.data.shards import write_tokens
from pipeline.data.tokenizer import open_tokenizer, train_tokenizer
from pipeline.evaluation.task_data import read_dataset
from pipeline.interop.huggingface import to_huggingface
from pipeline.interop.pretrained import bring_in
from pipeline.models import build, checkpoint, initialise
from pipeline.models.config import StackConfig, VanillaConfig
from pipeline.results.records import Environment, EvaluateResult, read_result
from pipeline.results.search import (
    RESULTS,
    TUNED,
    ModelTuning,
    Prediction,
    SearchResult,
    TrialResult,
    TuneResult,
    read_search,
    read_tuning,
    write_search,
)
from pipeline.study.schema import Corpus, Pretrained, Tokenize
from tests.analysis.synthetic import study_file, write_results
from tests.corruption import LINES, damaged, edited

SECONDS = 4
GOOD = b"".join(json.dumps({"text": f"document {number} " * 20}).encode() + b"\n" for number in range(60))


@dataclass(frozen=True)
class Reader:
    """A file that the pipeline reads, whole, and the code that reads it. ``named`` is what a refusal names."""

    path: str
    content: bytes
    read: Callable[[], object]
    named: str = ""

    def outcome(self, content: bytes) -> str:
        """``read`` or ``refused``; anything else is a failure."""
        path = Path(self.path)
        path.write_bytes(content)
        before = _files()
        started = time.process_time()
        message = _refusal(self.read)
        assert time.process_time() - started < SECONDS
        if message is None:
            return "read"
        assert (self.named or self.path) in message, message
        assert message.isprintable(), message
        assert len(message) < 1000
        assert _files() == before, "something half-written is left"
        return "refused"

    def tally(self, cases: Iterable[tuple[str, bytes]]) -> dict[str, int]:
        """How many cases came to which end. Raises where one has no good end, and says which."""
        counts = {"read": 0, "refused": 0}
        for name, content in cases:
            try:
                counts[self.outcome(content)] += 1
            except Exception as error:
                raise AssertionError(f"{self.path}, {name}: {type(error).__name__}: {error}") from error
        print(f"{self.path}: {counts}")
        return counts


def _refusal(read: Callable[[], object]) -> str | None:
    try:
        read()
    except UserError as error:
        return str(error)
    return None


def _files() -> set[str]:
    """All but what is kept to be read again faster, and what a refused model replaced."""
    return {str(path) for path in Path().rglob("*") if not {"index", "checkpoints"} & set(path.parts)}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read_corpus(path: str) -> Callable[[], None]:
    """Stage corpus over a good file and this one; every document comes out again."""

    def read() -> None:
        Path("good.jsonl").write_bytes(GOOD)
        manifest = write_corpus(Corpus(source="files", files=["good.jsonl", path]), paths.CORPUS)
        for split, part in manifest.splits.items():
            assert len(list(read_documents(paths.CORPUS, split))) == part.documents
        shutil.rmtree(paths.CORPUS)

    Path("good.jsonl").write_bytes(GOOD)
    paths.CORPUS.parent.mkdir(exist_ok=True)
    return read


def parquet(texts: list[str]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), sink)
    return sink.getvalue()


TEXTS = [json.loads(line)["text"] for line in GOOD.splitlines()]
FILES = {
    "a.txt": b"A plain document.\nTwo lines.\n" * 10,
    "a.jsonl": GOOD,
    "a.jsonl.gz": gzip.compress(GOOD, mtime=0),
    "a.jsonl.xz": lzma.compress(GOOD),
    "a.jsonl.zst": pa.compress(GOOD, "zstd", asbytes=True),
    "a.parquet": parquet(TEXTS),
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_corpus_file(name: str) -> None:
    reader = Reader(name, FILES[name], read_corpus(name))
    assert reader.outcome(FILES[name]) == "read"
    counts = reader.tally(damaged(FILES[name], name))
    assert sum(counts.values()) > 25
    assert counts["refused"] > 0


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_odd_lines(suffix: str) -> None:
    pack = {
        "": bytes,
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    }
    name = f"a.jsonl{suffix}"
    reader = Reader(name, GOOD, read_corpus(name))
    counts = reader.tally((repr(line[:40]), pack[suffix](GOOD + line + b"\n" + GOOD)) for line in LINES)
    assert counts["read"] >= 5
    assert counts["refused"] >= 20


def test_what_is_no_file() -> None:
    read = read_corpus("folder.jsonl")
    Path("folder.jsonl").mkdir()
    Path("link.jsonl").symlink_to("nowhere")
    for name in ("folder.jsonl", "link.jsonl"):
        with pytest.raises(UserError, match=f"corpus.files: '{name}' matches no file"):
            read_corpus(name)()
    with pytest.raises(UserError, match=r"folder\.jsonl"):
        read()


def tokens() -> tuple[bytes, bytes]:
    """A pair of token files, .bin and .idx."""
    writer = IndexedWriter(Path("pair"), np.dtype("<u2"))
    random = np.random.default_rng(0)
    for length in (5, 40, 1, 300, 12):
        writer.add(random.integers(2, 280, length).astype("<u2"), np.array([length], np.int32))
    writer.close()
    return Path("pair.bin").read_bytes(), Path("pair.idx").read_bytes()


def read_tokens() -> None:
    """As stage tokenize takes the pair in and training reads all of it."""
    split = foreign_split(["pair"], 280, 0, Path(), Path(), "train")
    file = IndexedFile.open(Path("pair"), split.shards[0].ends_included)
    stream = PackedStream(TokenCorpus([file], 280, 0, split.shards[0].sha256, Path("tokens")), 16, 4, 0, 0)
    for index in range(len(stream)):
        stream.window(index)


def test_a_damaged_pair_of_token_files() -> None:
    binary, index = tokens()
    for path, content in (("pair.bin", binary), ("pair.idx", index)):
        reader = Reader(path, content, read_tokens, named="pair.")
        counts = reader.tally(damaged(content, path, flips=60))
        assert counts["refused"] > 10
        assert reader.outcome(content) == "read"


def test_an_index_that_points_elsewhere() -> None:
    """Every number of the index changed to what it must not be."""
    _, index = tokens()
    reader = Reader("pair.idx", index, read_tokens, named="pair.")
    numbers = [(place, "<i4") for place in range(34, 54, 4)] + [(place, "<i8") for place in range(54, len(index), 8)]

    def cases() -> Iterator[tuple[str, bytes]]:
        for place, kind in numbers:
            for value in (-1, 2**31 - 1, -(2**31), 7):
                number = np.array([value], kind).tobytes()
                yield f"{value} at {place}", index[:place] + number + index[place + len(number) :]

    counts = reader.tally(cases())
    assert counts["read"] == 0
    assert counts["refused"] == 4 * len(numbers)


def test_a_damaged_tokenizer() -> None:
    train_tokenizer(TEXTS, 280, "<|endoftext|>").save("tokenizer.json")
    content = Path("tokenizer.json").read_bytes()

    def read() -> None:
        vocabulary = model_vocabulary(Tokenize(tokenizer="tokenizer.json"))
        tokens = Encoder(open_tokenizer(Path("tokenizer.json")), np.dtype("<u2")).encode(TEXTS[0])
        assert len(tokens) == 0 or tokens.max() < vocabulary

    reader = Reader("tokenizer.json", content, read)
    assert reader.outcome(content) == "read"
    reader.tally(damaged(content, "tokenizer"))
    reader.tally(edited(content, depth=2))


def test_a_damaged_manifest() -> None:
    Path("good.jsonl").write_bytes(GOOD)
    write_corpus(Corpus(source="files", files=["good.jsonl"]), paths.CORPUS)
    write_tokens(Tokenize(vocabulary=280), paths.CORPUS, paths.TOKENS, processes=1)

    def read_split() -> None:
        assert all(isinstance(text, str) for text in read_documents(paths.CORPUS, "test"))

    for folder, read in ((paths.CORPUS, read_split), (paths.TOKENS, lambda: TokenCorpus.open(paths.TOKENS, "test"))):
        path = folder / "manifest.json"
        content = path.read_bytes()
        reader = Reader(str(path), content, read, named="data/")
        reader.tally(damaged(content, str(path)))
        reader.tally(edited(content))
        assert reader.outcome(content) == "read"


def test_a_damaged_shard() -> None:
    Path("good.jsonl").write_bytes(GOOD)
    write_corpus(Corpus(source="files", files=["good.jsonl"]), paths.CORPUS)
    path = paths.CORPUS / "train-00000.jsonl.zst"
    content = path.read_bytes()
    reader = Reader(str(path), content, lambda: write_tokens(Tokenize(vocabulary=280), paths.CORPUS, paths.TOKENS, 1))
    counts = reader.tally(list(damaged(content, "shard", flips=2))[::5])
    assert counts["refused"] > 0


CONFIG = VanillaConfig(320, 16, StackConfig(1, 8, 2, 2, 16))


def test_a_damaged_model_from_elsewhere() -> None:
    """Hugging Face's files, as stage pretrained brings them in."""
    model = build(CONFIG)
    initialise(model, 0)
    to_huggingface(model, Path("elsewhere"))
    tests.fixture.write_tokenizer(Path("elsewhere/tokenizer.json"))
    for name in ("config.json", "model.safetensors"):
        path = Path("elsewhere", name)
        content = path.read_bytes()
        reader = Reader(str(path), content, lambda: bring_in("other", Pretrained("elsewhere")), named="elsewhere")
        assert reader.outcome(content) == "read"
        counts = reader.tally(damaged(content[:4096] if name == "config.json" else content, name))
        assert counts["refused"] > 5
        if name == "config.json":
            reader.tally(edited(content))
        assert reader.outcome(content) == "read"


def test_a_damaged_published_model() -> None:
    """A folder of the published code, as stage pretrained brings it in."""
    fixture = tests.fixture.read("prefix")
    Path("elsewhere").mkdir()
    tests.fixture.write_tokenizer(Path("elsewhere/tokenizer.json"))
    save_file(fixture.state_dict, "elsewhere/model.safetensors")
    content = json.dumps(fixture.config).encode()
    reader = Reader(
        "elsewhere/block.yaml", content, lambda: bring_in("other", Pretrained("elsewhere", "published")), "elsewhere"
    )
    assert reader.outcome(content) == "read"
    counts = reader.tally(islice(edited(content), 0, None, 5))
    assert counts["refused"] > 50
    reader.tally(damaged(content, "published", flips=20))


def test_a_damaged_checkpoint() -> None:
    """The project's own files, as evaluation and benchmark load them."""
    model = build(CONFIG)
    initialise(model, 0)
    checkpoint.save("cell", model, {"fingerprint": "a"})
    for name in ("config.json", "model.safetensors"):
        path = Path("cell", name)
        content = path.read_bytes()
        reader = Reader(str(path), content, lambda: checkpoint.load("cell"), named="cell")
        reader.tally(damaged(content, name))
        if name == "config.json":
            reader.tally(edited(content))
        assert reader.outcome(content) == "read"


def header(content: bytes, change: Callable[[dict[str, dict[str, object]]], None]) -> bytes:
    """A safetensors file with another header."""
    size = int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8 : 8 + size])
    change(tensors)
    changed = json.dumps(tensors).encode()
    return len(changed).to_bytes(8, "little") + changed + content[8 + size :]


def test_weights_of_another_kind() -> None:
    model = build(CONFIG)
    initialise(model, 0)
    checkpoint.save("cell", model, {})
    content = Path("cell/model.safetensors").read_bytes()
    reader = Reader("cell/model.safetensors", content, lambda: checkpoint.load("cell"))
    kinds = ("I32", "U32", "F16", "F64", "I64", "BOOL", "", "x")
    cases = [
        (kind, header(content, lambda tensors, kind=kind: tensors["head.weight"].update(dtype=kind))) for kind in kinds
    ]
    cases += [
        ("shape", header(content, lambda tensors: tensors["head.weight"].update(shape=[8, 320]))),
        ("offsets", header(content, lambda tensors: tensors["head.weight"].update(data_offsets=[0, 2**62]))),
        ("a name", header(content, lambda tensors: tensors.update(other=tensors.pop("head.weight")))),
        ("a huge header", (2**63).to_bytes(8, "little") + content[8:]),
    ]
    assert reader.tally(cases) == {"read": 0, "refused": len(cases)}


def test_damaged_task_documents() -> None:
    rows = b"".join(json.dumps({"text": f"a {number}", "label": number}).encode() + b"\n" for number in range(9))
    reader = Reader("task.test.jsonl", rows, lambda: read_dataset(Path(), "task", "test"))
    assert reader.outcome(rows) == "read"
    reader.tally(damaged(rows, "rows"))
    counts = reader.tally((repr(line[:40]), rows + line + b"\n") for line in LINES)
    assert counts["refused"] > 20
    assert counts["refused"] == len(LINES) - counts["read"]


def test_a_damaged_result() -> None:
    write_results(study_file(Path(), {"s": (2, 64)}, [2]))
    path = paths.result("evaluate", "block-s-2-base-0")
    content = path.read_bytes()
    reader = Reader(str(path), content, lambda: read_result(path, EvaluateResult, "evaluate"))
    assert reader.outcome(content) == "read"
    counts = reader.tally(edited(content, depth=2))
    assert counts["refused"] > 100
    reader.tally(damaged(content, "result"))


def test_a_damaged_search_record() -> None:
    environment = Environment("test processor", 2, "fp32", "2.13.0", "3.11.7", "0" * 40, False)
    trial = TrialResult(
        number=0, state="complete", point={"block_length": 4}, cell="block-s-4-base-0", variant="base", loss=2.5,
        tokens_per_second=100.0, total_parameters=10, non_embedding_parameters=5, training_flops=1e6,
        training_memory=1000, seconds=1.5, fingerprint="a", environment=environment,
    )  # fmt: skip
    write_search(
        SearchResult(
            study="study",
            identity="a",
            objectives=["loss"],
            setting="short",
            throughput="measured",
            size="s",
            wanted=1,
            infeasible=0,
            failed=0,
            trials=[trial],
            best=[0],
            importance={"loss": {"x": 0.5}},
        )
    )
    reader = Reader(str(RESULTS), RESULTS.read_bytes(), read_search)
    assert reader.outcome(reader.content) == "read"
    counts = reader.tally(edited(reader.content, depth=4))
    assert counts["refused"] > 400
    reader.tally(damaged(reader.content, "search"))


def test_a_damaged_tuning_record() -> None:
    environment = Environment("test processor", 2, "fp32", "2.13.0", "3.11.7", "0" * 40, False)
    trial = TrialResult(
        number=0, state="complete", point={"learning_rate": 0.01, "batch_size": 4, "optimizer": "muon"},
        cell="vanilla-s_lr0p01-0", variant=None, loss=2.5, tokens_per_second=None, total_parameters=10,
        non_embedding_parameters=5, training_flops=1e6, training_memory=1000, seconds=1.5, fingerprint="a",
        environment=environment,
    )  # fmt: skip
    model = ModelTuning(
        identity="a", objectives=["loss"], wanted=1, infeasible=0, failed=0, trials=[trial], best=[0],
        model="vanilla-s", shared=[], at_edge=["learning_rate"], halved=0.1, doubled=None,
    )  # fmt: skip
    predicted = Prediction("vanilla-l", ["vanilla-s"], trial.point, {"learning_rate": [0.1, 0.2]}, [])
    result = TuneResult(study="study", tokens=1000, seed=0, models=[model], predicted=[predicted])
    write_search(result, TUNED)
    assert read_tuning() == result
    reader = Reader(str(TUNED), TUNED.read_bytes(), read_tuning)
    assert reader.tally(edited(reader.content, depth=6))["refused"] > 400
    reader.tally(damaged(reader.content, "tuning"))


CHILD = """
import re, sys
from pathlib import Path
from pipeline.data import write_corpus
from pipeline.base.errors import UserError
from pipeline.study.schema import Corpus
try:
    write_corpus(Corpus(source="files", files=["good.jsonl", sys.argv[1]]), Path("corpus"))
    print("read")
except UserError as error:
    print(error)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""
GIGABYTE = 2**30


def _opened(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.open(path, "wb", compresslevel=1)
    if path.suffix == ".xz":
        return lzma.open(path, "wb", preset=0)
    return pa.output_stream(str(path), compression="zstd") if path.suffix == ".zst" else path.open("wb")


def huge(path: Path, start: bytes, fill: bytes, end: bytes) -> None:
    """A file of a gigabyte of ``fill`` between ``start`` and ``end``, compressed where its ending says so."""
    with _opened(path) as opened:
        opened.write(start)
        for _ in range(GIGABYTE // 2**20):
            opened.write(fill * (2**20 // len(fill)))
        opened.write(end)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("name", "start", "fill", "end", "expected"),
    [
        ("a.txt", b"", b"word ", b"", "a.txt: a document is longer than 128 MiB; split it into several"),
        ("a.jsonl", b'{"text": "', b"a", b'"}\n', "a.jsonl, line 1: a document is longer than 128 MiB"),
        ("a.jsonl.gz", b'{"text": "', b"a", b'"}\n', "a.jsonl.gz, line 1: a document is longer than 128 MiB"),
        ("a.jsonl.xz", b'{"text": "', b"a", b'"}\n', "a.jsonl.xz, line 1: a document is longer than 128 MiB"),
        ("a.jsonl.zst", b'{"text": "', b"a", b'"}\n', "a.jsonl.zst, line 1: a document is longer than 128 MiB"),
        ("a.jsonl", b"", b"\x00", b"", "a.jsonl, line 1: a document is longer than 128 MiB"),
        ("a.jsonl.zst", b"", b" " * 65535 + b"\n", b"", "read"),
        ("a.jsonl", b"[" * 1000, b"[", b"", "a.jsonl, line 1: a document is longer than 128 MiB"),
    ],
)
def test_a_gigabyte_in_one_line_takes_bounded_memory(
    tmp_path: Path, root: Path, name: str, start: bytes, fill: bytes, end: bytes, expected: str
) -> None:
    Path("good.jsonl").write_bytes(GOOD)
    huge(tmp_path / name, start, fill, end)
    environment = os.environ | {"PYTHONPATH": str(root)}
    ended = subprocess.run([sys.executable, "-c", CHILD, name], capture_output=True, text=True, env=environment)
    message, peak = ended.stdout.splitlines()
    print(f"\n{name}: {message}; peak {int(peak) / 2**20:.0f} MiB")
    assert message.startswith(expected)
    assert int(peak) < 400 * 2**20
