"""A mistake in params.yaml is one line that names the key, the value and what would be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.base.errors import UserError
from pipeline.study import cells, load_study

MISTAKES = [
    ("width: 128", "widht: 128", r"sizes\.s\.widht: unknown key; did you mean 'width'"),
    ("layers: 4", "layers: four", r"sizes\.s\.layers: 'four' is wrong; it must be a whole number"),
    (
        "kind: prefix",
        "kind: prefix, local: -1",
        r"variants\.base\.token_decoder\.local: -1 is wrong; it must be greater",
    ),
    ("kind: prefix", "kind: prefix, mix: true", r"cell block-s-2-base-0: token_decoder\.mix adds .*; give local too"),
    (
        "kind: prefix",
        "kind: prefix, contexts: 600",
        r"cell block-s-2-base-0: token_decoder\.contexts 600 is more than the",
    ),
    ("layers: 4", "layers: 0", r"sizes\.s\.layers: 0 is wrong; it must be greater than 0"),
    ("layers: 4", "layers: 1", r"sizes\.s\.layers: 1 is wrong; a block transformer splits"),
    ("width: 128", "width: 100, heads: 3", r"width 100 is not a multiple of heads 3"),
    ("size: [s, m]", "size: [s, q]", r"grid\.vanilla\.size: 'q' is wrong; it is one of s, m"),
    ("variant: [base]", "variant: [bace]", r"grid\.block\.variant: 'bace' is wrong; did you mean 'base'"),
    ("block_length: [2, 4, 8]", "block_length: [2, 0]", r"grid\.block\.block_length: 0 is wrong"),
    ("block_length: [2, 4, 8]", "block_length: [3]", r"block_length: 3 is wrong; it must divide .* \(512\)"),
    ("kind: lookup", "kind: lokup", r"variants\.base\.embedder\.kind: 'lokup' is wrong; did you mean 'lookup'"),
    ("name: sotu  ", "name: ../up", r"name: '\.\./up' is wrong; a name has"),
    ("size: [s, m]", "size: [s, s]", r"grid: 'vanilla-s-0' is wrong; two cells are called"),
    ("  m: {layers: 6", "  s: {layers: 6", r"not valid YAML: .*line 22, column 3.* duplicate key \"s\""),
    ("  m: {layers: 6", "  s-2: {layers: 6", r"sizes: 's-2' is wrong; a name has"),
    ("seed: [0]", "seed: []", r"grid: 'no cell' is wrong; name at least one"),
    ("repeats: 3", "repeats: yes", r"benchmark\.repeats: 'yes' is wrong; it must be a whole number"),
    ("precision: auto", "precision: fp17", r"pretrain\.precision: 'fp17' is wrong; it is one of auto, fp32, bf16"),
    ("source: sotu", "source: files", r"corpus\.files: \[\] is wrong; source 'files' needs"),
    ("learning_rate: 2.0e-3", "learning_rate: -1", r"pretrain\.learning_rate: -1\.0 is wrong"),
    ("name: sotu  ", "nmae: sotu  ", r"nmae: unknown key; did you mean 'name'"),
    ("grid:  ", "grid: 3  #", r"."),
    ("name: sotu  ", "name: [  ", r"not valid YAML"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES)
def test_mistake_is_one_clear_line(tmp_path: Path, params_text: str, right: str, wrong: str, message: str) -> None:
    assert right in params_text
    path = tmp_path / "params.yaml"
    path.write_text(params_text.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_study(path)
    text = str(error.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert re.search(message, text), text


def test_a_missing_key_is_named(tmp_path: Path, params_text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"^name:.*\n", "", params_text, flags=re.M), encoding="utf-8")
    with pytest.raises(UserError, match="name: this key is missing"):
        load_study(path)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: no such file"):
        load_study(tmp_path / "absent.yaml")


def test_default_study_has_both_families_at_two_sizes_and_three_block_lengths(root: Path) -> None:
    names = [cell.name for cell in cells(load_study(root / "params.yaml"))]
    block = [f"block-{size}-{length}-base-0" for size in "sm" for length in (2, 4, 8)]
    assert names == ["vanilla-s-0", "vanilla-m-0", *block]


def test_what_a_message_quotes_can_be_seen(tmp_path: Path) -> None:
    """The parser quotes the wrong line, which may begin with a byte order mark."""
    params = tmp_path / "params.yaml"
    params.write_bytes(b"\xef\xbb\xbf\t\nname: a\n")
    with pytest.raises(UserError, match=r"not valid YAML: .*line 1, column 1") as caught:
        load_study(params)
    assert str(caught.value).isprintable()
