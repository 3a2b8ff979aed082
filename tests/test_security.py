"""What must never be: code from data, servers open to others, passwords and tokens in print."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from pipeline.base.redact import redacted
from pipeline.commands.main import main
from tests.faults.stages import SHORT
from tests.test_tracking import write_checkpoint

FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
RUNS_CODE = {"eval", "exec", "__import__"}
SECRET = "s3cr3t-pass"
TOKEN = "hf_" + "abcdefghijklmnop"


def calls(root: Path) -> list[tuple[Path, ast.Call]]:
    files = [*root.glob("pipeline/**/*.py"), *root.glob("stages/*.py")]
    assert len(files) > 100
    return [
        (path, node) for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]


def only_the_error(node: ast.ImportFrom) -> bool:
    """Whether an import names nothing but what torch.load raises of a file that it refuses."""
    return [alias.name for alias in node.names] == ["UnpicklingError"]


def test_nothing_is_unpickled_and_no_text_is_run(root: Path) -> None:
    for path in [*root.glob("pipeline/**/*.py"), *root.glob("stages/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not only_the_error(node) else []
            assert not {name.split(".")[0] for name in names} & FORBIDDEN, path
    for path, call in calls(root):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        name = ast.unparse(call.func)
        assert name not in RUNS_CODE, f"{path}: {ast.unparse(call)}"
        assert keywords.get("shell", "False") == "False", path
        assert keywords.get("trust_remote_code", "False") == "False", path
        if name in ("torch.load", "trainer.fit"):
            assert keywords.get("weights_only") == "True", f"{path}: {ast.unparse(call)}"
        if name in ("np.load", "numpy.load", "np.memmap"):
            assert keywords.get("allow_pickle", "False") == "False", path
        assert name not in ("yaml.load", "yaml.unsafe_load", "YAML(typ='unsafe')"), path


def test_servers_bind_to_this_machine_alone(root: Path) -> None:
    hosts = [path for path in root.glob("pipeline/**/*.py") if "0.0.0.0" in path.read_text()]
    assert hosts == []
    (command,) = re.findall(r'"mlflow", "ui".*', (root / "pipeline/tracking/ui.py").read_text())
    assert '"--host", "127.0.0.1"' in command


def test_a_token_of_the_environment_is_never_read(root: Path) -> None:
    """Hugging Face's libraries read it themselves; here nothing could print it."""
    for path in root.glob("pipeline/**/*.py"):
        assert not re.search(r"HF_TOKEN|HUGGING_FACE_HUB_TOKEN|MLFLOW_TRACKING_PASSWORD", path.read_text()), path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"http://user:{SECRET}@host:5000/api", "http://***@host:5000/api"),
        (f"at postgresql+psycopg2://user:{SECRET}@host/db does", "at postgresql+psycopg2://***@host/db does"),
        (f"https://{SECRET}@host", "https://***@host"),
        (f"http://user:{SECRET}@x@host/a", "http://***@host/a"),
        (f"token {TOKEN}, no more", "token ***, no more"),
        ("http://host:5000/path?mail=a@b.c", "http://host:5000/path?mail=a@b.c"),
        ("sqlite:////folder/mlflow.db and someone@example.org", "sqlite:////folder/mlflow.db and someone@example.org"),
    ],
)
def test_passwords_and_tokens_are_cut_out(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "arguments", [("tracking", "sync"), ("ui",), ("search", "--show"), ("tune", "--show"), ("check",)]
)
def test_no_command_prints_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    search = f"search: {{setting: short, size: s, variant: base, space: {{block_length: [4]}}, storage: 'no://user:{SECRET}@host/db'}}"
    tune = f"tune: {{models: [vanilla-s], space: {{learning_rate: [0.1]}}, tokens: 9, storage: 'no://user:{SECRET}@host/db'}}"
    section = {"search": search, "check": search, "tune": tune}.get(arguments[0], "")
    Path("params.yaml").write_text(f"{SHORT}\n{section}\n")
    write_checkpoint("a", steps=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("sys.argv", ["pipeline", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    printed, errors = capfd.readouterr()
    assert ended.value.code == 1
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("error: ")
    assert SECRET not in printed + errors
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "params.yaml"]
    assert written
    assert not [
        path
        for path in written
        if SECRET in path.read_text(errors="replace") or TOKEN in path.read_text(errors="replace")
    ]


def test_workflows_are_pinned_and_may_only_read(root: Path) -> None:
    files = sorted((root / ".github/workflows").glob("*.yml"))
    assert files
    for path in files:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            assert "permissions" not in job
            for step in job["steps"]:
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step.get("uses", "a/b@" + "0" * 40)), step
                assert "${{" not in step.get("run", ""), "text of an event must not become a command"
