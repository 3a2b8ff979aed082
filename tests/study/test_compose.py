"""A study in pieces: overrides of the command line, references, included files."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.base.errors import UserError
from pipeline.study import Study, check_dvc_keys, load_study
from pipeline.study.compose import LONGEST_CHAIN, MOST_FILES


@pytest.fixture(autouse=True)
def text(params_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A well-formed params.yaml, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(params_text, encoding="utf-8")
    return params_text


def value(study: Study, key: str) -> object:
    found: object = study
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


def refused(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load_study(overrides=overrides)
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


OVERRIDES = [
    ("pretrain.tokens=4000000", "pretrain.tokens", 4_000_000),
    ("pretrain.learning_rate=1e-3", "pretrain.learning_rate", 0.001),
    ("pretrain.learning_rate=1", "pretrain.learning_rate", 1.0),
    ("grid.seed=[0, 1]", "grid.seed", [0, 1]),
    ("pretrain.betas.1=0.99", "pretrain.betas", [0.9, 0.99]),
    ("evaluate.limit=null", "evaluate.limit", None),
    ("evaluate.limit=", "evaluate.limit", None),
    ("name=other", "name", "other"),
    ("name='1e3'", "name", "1e3"),
    ("pretrain.decay_all=true", "pretrain.decay_all", True),
    ("sizes.s.pretrain={tokens: 5000000}", "sizes.s.pretrain.tokens", 5_000_000),
    ("sizes.new={layers: 2, width: 64}", "sizes.new.width", 64),
    ("hardware.label=a=b", "hardware.label", "a=b"),
    ("recipes.vanilla-s.learning_rate=1e-2", "recipes.vanilla-s.learning_rate", 0.01),
    ("recipes={vanilla-s: {warmup_steps: 9}, vanilla-m: '${recipes.vanilla-s}'}", "recipes.vanilla-m.warmup_steps", 9),
    ("evaluate.stride=${pretrain.context_length}", "evaluate.stride", 512),
]


@pytest.mark.parametrize(("override", "key", "expected"), OVERRIDES)
def test_an_override_is_read_as_the_file_is(override: str, key: str, expected: object) -> None:
    found = value(load_study(overrides=[override]), key)
    assert found == expected
    assert type(found) is type(expected)


def test_a_mapping_is_merged_and_the_last_override_counts() -> None:
    plain = load_study()
    changed = load_study(overrides=["sizes.s={layers: 8}", "pretrain.tokens=1", "pretrain.tokens=4000000"])
    assert changed.sizes["s"] == dataclasses.replace(plain.sizes["s"], layers=8)
    assert changed.pretrain == dataclasses.replace(plain.pretrain, tokens=4_000_000)
    assert changed.sizes["m"] == plain.sizes["m"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pretrain.tokns=1", "params.yaml --set pretrain.tokns=1: pretrain.tokns: unknown key; did you mean 'tokens'?"),
        ("pretrain.tokens=1e6", "pretrain.tokens: 1000000.0 is wrong; it must be a whole number"),
        ("pretrain.tokens='9'", "pretrain.tokens: '9' is wrong; it must be a whole number"),
        ("pretrain.tokens=-1", "pretrain.tokens: -1 is wrong; it must be greater than 0"),
        ("pretrain.precision=fp17", "pretrain.precision: 'fp17' is wrong; it is one of"),
        ("repeats=yes", "repeats: unknown key"),
        ("benchmark.repeats=yes", "benchmark.repeats: 'yes' is wrong; it must be a whole number"),
        ("pretrain.tokens", "--set pretrain.tokens: it is KEY=VALUE, such as pretrain.tokens=1000"),
        ("=3", "--set =3: it is KEY=VALUE"),
        ("pretrain..tokens=3", "it is KEY=VALUE"),
        ("pretrain.tokens =3", "it is KEY=VALUE"),
        ("pretrain.betas=[0.9", "not valid YAML"),
        ("name=!!python/name:os.system", "not valid YAML"),
        ("corpus.seed=2020-01-01", "corpus.seed: datetime.date(2020, 1, 1) is wrong; a value is text"),
        ("pretrain.betas.7=0.1", "pretrain.betas.7 cannot be set"),
        ("name.x=3", "name: {'x': 3} is wrong; it must be text"),
        ("include=base.yaml", "include: unknown key"),
        ("name=???", "name: '???' is wrong; it marks a missing value"),
        ("name=" + "[" * 1000, "nested more than"),
        ("name=x\ny", "name: 'x y' is wrong; a name has"),
    ],
)
def test_an_override_is_checked_as_the_file_is(override: str, message: str) -> None:
    assert message in refused(override)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("${name}", "sotu"),
        ("x${grid.seed.0}_${sizes.s.width}", "x0_128"),
        ("${grid.vanilla.size.1}", "m"),
    ],
)
def test_a_reference_stands_for_the_value(text: str, reference: str, expected: str) -> None:
    text = text.replace("end_of_text: <|endoftext|>", f"end_of_text: {reference}")
    Path("params.yaml").write_text(text, encoding="utf-8")
    assert load_study().tokenize.end_of_text == expected


def test_a_reference_to_a_section_copies_it(text: str) -> None:
    study = load_study(overrides=["sizes.twin=${sizes.s}", "variants.twin=${variants.base}", "grid.block.size=[twin]"])
    assert study.sizes["twin"] == study.sizes["s"]
    assert study.variants["twin"] == study.variants["base"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["name=${oc.env:HOME}"], "name: '${oc.env:HOME}' is wrong; a reference is to a key of the study"),
        (["name=${now:}"], "nothing else is read"),
        (["name=${env.HOME}"], "there is no env.HOME"),
        (["name=${nmae}"], "there is no nmae; did you mean 'name'?"),
        (["name=${name}"], "it leads back to itself"),
        (["name=${corpus.text_field}", "corpus.text_field=${name}"], "it leads back to itself"),
        (["sizes.s=${sizes}"], "it leads back to itself"),
        (["name=${.name}"], "a reference is to a key of the study"),
        (["name=${${name}}"], "a reference is to a key of the study"),
        (["name=${name"], "a reference is to a key of the study"),
        (["name=\\${name}"], "a reference is to a key of the study"),
        (["pretrain.tokens=${name}"], "pretrain.tokens: 'sotu' is wrong; it must be a whole number"),
        (["pretrain.tokens=x${corpus.seed}"], "pretrain.tokens: 'x0' is wrong"),
        (["evaluate.stride=${hardware.num_node}"], "there is no hardware.num_node"),
        (["pretrain.betas=[0, '${pretrain.betas.9}']"], "there is no pretrain.betas.9"),
        (["name=${pretrain.tokens.x}"], "there is no pretrain.tokens.x"),
    ],
)
def test_a_reference_that_is_none(overrides: list[str], message: str) -> None:
    assert message in refused(*overrides)


def test_references_to_references_end_soon_and_stay_small(text: str) -> None:
    started = time.monotonic()
    chain = [f"a{number}: ${{a{number + 1}}}\n" for number in range(LONGEST_CHAIN + 2)]
    Path("params.yaml").write_text(text + "".join(chain) + f"a{LONGEST_CHAIN + 2}: 1\n", encoding="utf-8")
    assert "leads on through more than" in refused()
    bomb = [f"a{number}: '{f'${{a{number + 1}}}' * 100}'\n" for number in range(LONGEST_CHAIN - 2)]
    Path("params.yaml").write_text(text + "".join(bomb) + f"a{LONGEST_CHAIN - 2}: long\n", encoding="utf-8")
    assert "stands for more than 65,536 characters" in refused()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("key", ["grid.seed", "grid.block.size", "grid.vanilla.size", "pretrained"])
def test_keys_that_dvc_reads_hold_no_reference(text: str, key: str) -> None:
    old, new = {
        "grid.seed": ("seed: [0]", "seed: ['${corpus.seed}']"),
        "grid.block.size": ("  block:\n    size: [s, m]", "  block:\n    size: ${grid.vanilla.size}"),
        "grid.vanilla.size": ("  vanilla:\n    size: [s, m]", "  vanilla:\n    size: ['${evaluate.precision}', m]"),
        "pretrained": ("pretrained: {}", "pretrained: {a: {path: '${name}'}}"),
    }[key]
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new), encoding="utf-8")
    assert re.match(rf"params.yaml: {key}: .*\$.* is wrong; dvc.yaml reads this key, and DVC", refused())


def test_a_file_s_keys_count_over_those_it_includes(text: str) -> None:
    Path("shared").mkdir()
    Path("shared/base.yaml").write_text(text, encoding="utf-8")
    Path("shared/more.yaml").write_text("pretrain: {tokens: 9000000, batch_size: 4}\n", encoding="utf-8")
    own = "include: [shared/base.yaml, shared/more.yaml]\nname: own\npretrain: {batch_size: 2}\ngrid: {seed: [3]}\n"
    Path("params.yaml").write_text(own, encoding="utf-8")
    base, study = load_study("shared/base.yaml"), load_study()
    assert study.pretrain == dataclasses.replace(base.pretrain, tokens=9_000_000, batch_size=2)
    assert (study.name, study.grid.seed, study.grid.block) == ("own", [3], base.grid.block)
    assert load_study(overrides=["pretrain.tokens=8000000"]).pretrain.tokens == 8_000_000
    with pytest.raises(UserError, match=r"^params.yaml: grid.vanilla.size: this key is missing; dvc.yaml reads it in"):
        check_dvc_keys()


def test_an_included_file_is_found_beside_the_file_itself_not_beside_a_link_to_it(text: str) -> None:
    Path("studies").mkdir()
    Path("studies/base.yaml").write_text(text, encoding="utf-8")
    Path("studies/one.yaml").write_text("include: base.yaml\nname: one\n", encoding="utf-8")
    Path("params.yaml").unlink()
    Path("params.yaml").symlink_to("studies/one.yaml")
    assert load_study().name == "one"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"params": "include: absent.yaml\n"}, "absent.yaml' is wrong; there is no such file"),
        ({"params": "include: .\n"}, "there is no such file"),
        ({"params": "include: params.yaml\n"}, "params.yaml: include: it leads back to this file"),
        ({"params": "include: a.yaml\n", "a": "include: b.yaml\n", "b": "include: a.yaml\n"}, "include: it leads back"),
        ({"params": "include: 3\n"}, "include: 3 is wrong; it is a file, or a list of files"),
        ({"params": "include: {a: b}\n"}, "include: {'a': 'b'} is wrong"),
        ({"params": "include: ''\n"}, "include: '' is wrong"),
        ({"params": "include: ${name}\n"}, "include: '${name}' is wrong"),
        ({"params": "include: a.yaml\n", "a": "- 1\n"}, "a.yaml: a study is a mapping of keys, not list"),
        ({"params": "include: a.yaml\n", "a": "x: [\n"}, "a.yaml: not valid YAML"),
        ({"params": "include: a.yaml\n", "a": "sizes: {s: {widht: 3}}\n"}, "params.yaml: name: this key is missing"),
        ({"params": "include: a.yaml\n", "a": "1: 2\n"}, "a.yaml: the study: 1 is wrong; a key is text"),
    ],
)  # fmt: skip
def test_an_include_that_is_none(files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        Path(f"{name}.yaml").write_text(content, encoding="utf-8")
    assert message in refused()


def test_files_that_include_one_another_many_times_end_soon() -> None:
    for number in range(40):
        Path(f"{number}.yaml").write_text(f"include: [{number + 1}.yaml, {number + 1}.yaml]\n", encoding="utf-8")
    Path("40.yaml").write_text("{}\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"more than {MOST_FILES} files in all"):
        load_study("0.yaml")


def test_a_study_is_frozen() -> None:
    study = load_study()
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.pretrain.tokens = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.sizes["s"].pretrain.tokens = 3  # type: ignore[misc]


def test_commands_take_overrides_and_check_shows_what_counts(root: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline", *arguments]
        return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True)

    planned = run("plan", "--json", "--set", "grid.seed=[5]", "--set", "grid.block.block_length=[2]")
    assert [entry["cell"] for entry in json.loads(planned.stdout)][-1] == "block-m-2-base-5"
    shown = run("check", "--show", "--set", "evaluate.stride=${pretrain.context_length}")
    assert "  stride: 512\n" in shown.stdout
    assert "  num_nodes: 1\n" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "params.yaml: study 'sotu' with 8 cells is well-formed"
    wrong = run("plan", "--set", "pretrain.tokens=none")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: params.yaml --set pretrain.tokens=none: pretrain.tokens: 'none' is wrong; ")


def test_the_examples_of_the_guide_load(root: Path, text: str) -> None:
    page = (root / "docs/params.md").read_text(encoding="utf-8")
    references, include = re.findall(r"```text\n(.*?)```", page, re.S)
    Path("base.yaml").write_text(text, encoding="utf-8")
    Path("params.yaml").write_text(references + "include: base.yaml\n", encoding="utf-8")
    study = load_study()
    assert (study.evaluate.stride, study.hardware.checkpoint_every) == (512, 20)
    Path("params.yaml").write_text(include, encoding="utf-8")
    assert (load_study().name, load_study().pretrain.tokens) == ("longer", 2_000_000)
