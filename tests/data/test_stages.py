"""The two stages as commands, run as DVC runs them where it matters that they are processes."""

import contextlib
import importlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.data import TokenCorpus
from pipeline.data.tokenizer import train_tokenizer

WORDS = ["plain", "text", "of", "several", "words", "that", "repeats", "itself"]


def stage(name, folder, root, **options):
    command = [sys.executable, "-m", f"stages.{name}"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(name, folder):
    """Status, output and errors of a stage in this process."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr("sys.argv", [name])
        try:
            importlib.import_module(f"stages.{name}").main()
        except SystemExit as end:
            status = end.code
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def study(tmp_path, params_text):
    """A folder with a study of that many documents, 4 kB each, and a blank one."""

    def make(documents):
        texts = [" ".join([f"{i}:", *(WORDS[i * j % 11 % 8] for j in range(700))]) for i in range(documents)]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, " "]))
        text = params_text.replace("source: sotu", "source: files").replace("files: []", 'files: ["*.jsonl"]')
        (tmp_path / "params.yaml").write_text(text.replace("tokenizer: null", "tokenizer: own.json"))
        train_tokenizer([" ".join(WORDS)], 280, "<|endoftext|>").save(str(tmp_path / "own.json"))
        return tmp_path

    return make


def test_each_stage_ends_with_one_line(study, root):
    study = study(200)
    corpus = stage("corpus", study, root)
    out, err = corpus.communicate()
    assert (corpus.returncode, err) == (0, "")
    assert out == "data/corpus: 0.8 MB of text; documents: train 180, validation 10, test 10; 1 empty left out\n"
    tokenize = stage("tokenize", study, root)
    out, err = tokenize.communicate()
    assert (tokenize.returncode, err) == (0, "")
    assert out.startswith("data/tokens: vocabulary 280; tokens: train ")
    assert out.count("\n") == 1


def test_a_users_mistake_is_one_line(study):
    study = study(1)
    status, out, err = run("tokenize", study)
    assert (status, out) == (1, "")
    assert err == "error: data/corpus/manifest.json: no such file; run `dvc repro corpus` first\n"
    (study / "a.jsonl").write_text('{"text": "good"}\n{"txt": "bad"}\n')
    status, out, err = run("corpus", study)
    assert (status, out) == (1, "")
    assert err == "error: a.jsonl, line 2: no field 'text'; set corpus.text_field to one of txt\n"
    assert not (study / "data" / "corpus").exists()


@pytest.mark.parametrize(("name", "limit"), [("corpus", 500), ("tokenize", 60_000)])
def test_a_full_disk_is_one_line_and_leaves_nothing(study, root, name, limit):
    study = study(200)
    if name == "tokenize":
        assert run("corpus", study)[0] == 0
    process = stage(name, study, root, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    _, err = process.communicate()
    folder = {"corpus": "corpus", "tokenize": "tokens"}[name]
    assert process.returncode == 1
    assert err.startswith(f"error: data/{folder}: cannot be written (")
    assert err.endswith("cannot be written (File too large); run it again once that is put right\n")
    assert err.count("\n") == 1
    assert folder not in [path.name for path in (study / "data").iterdir()]
    assert f".{folder}.partial" not in [path.name for path in (study / "data").iterdir()]


def descendants(pid):
    """Processes that this one started, at any remove."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [other for child in map(int, children) for other in [child, *descendants(child)]]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_tokenizer_leaves_no_process_and_no_half_result(study, root, kill):
    study = study(1300)
    assert run("corpus", study)[0] == 0
    process = stage("tokenize", study, root)
    partial = study / "data" / ".tokens.partial" / "train-00000.bin"
    while not (partial.exists() and partial.stat().st_size):
        assert process.poll() is None
        time.sleep(0.002)
    workers = descendants(process.pid)
    assert workers
    process.send_signal(kill)
    _, err = process.communicate()
    assert process.returncode == (130 if kill == signal.SIGINT else -kill)
    assert "Traceback" not in err
    assert not (study / "data" / "tokens").exists()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert run("tokenize", study)[0] == 0
    counts = {
        split: len(TokenCorpus.open(study / "data" / "tokens", split)) for split in ("train", "validation", "test")
    }
    assert counts == {"train": 1170, "validation": 65, "test": 65}
    assert sorted(path.name for path in (study / "data").iterdir()) == ["corpus", "tokens"]
