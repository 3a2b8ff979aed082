"""Points of the search's space: the architectures they name, their costs, and mistakes in the section."""

from __future__ import annotations

import re
from itertools import product

import pytest

from pipeline.base.errors import UserError
from pipeline.base.paths import TOKENS
from pipeline.data import Manifest
from pipeline.models.config import BlockConfig, PrefixConfig
from pipeline.search.allocation import Allocation
from pipeline.search.feasibility import cost
from pipeline.study import Study, model_config, pretraining
from pipeline.study.checks import NAME
from pipeline.study.recipe_space import Point, choices
from pipeline.study.search_space import known_points, trial_study
from tests.search.conftest import Searching

VOCABULARY = 384


def points(study: Study) -> list[Point]:
    assert study.search is not None
    varied = choices(study.search.space)
    return [dict(zip(varied, values, strict=True)) for values in product(*varied.values())]


def allocation(study: Study) -> Allocation:
    return Allocation(study, Manifest.read(TOKENS))


def config(study: Study, point: Point) -> BlockConfig:
    made = model_config(*trial_study(study, point), VOCABULARY)
    assert isinstance(made, BlockConfig)
    return made


def test_a_points_architecture_has_its_values(searching: Searching) -> None:
    study = searching(
        ("base: {}", "base: {embedder: {kind: projection}}"),
        ("space: {", "space: {block_width: [32, 64], block_kv_heads: [1, 2], token_kv_heads: [1, 2], "
                     "embedder_width: [16, 32], local: [0, 2], memory: [0, 8], "),
        ("{layers: 2, width: 32}", "{layers: 2, width: 32, heads: 2}"),
    )  # fmt: skip
    point = {"block_length": 2, "block_layers": 2, "token_layers": 1, "block_width": 64, "token_width": 64,
             "block_kv_heads": 1, "token_kv_heads": 2, "prefix_length": 1, "embedder_width": 16,
             "local": 2, "memory": 8}  # fmt: skip
    made = config(study, point)
    block, token = made.block_decoder, made.token_decoder.stack
    decoder = made.token_decoder
    assert isinstance(decoder, PrefixConfig)
    assert (made.block_length, made.embedder.width, decoder.prefix_length) == (2, 16, 1)
    assert (decoder.local, decoder.memory) == (2, 8)
    assert (block.layers, block.width, block.kv_heads) == (2, 64, 1)
    assert (token.layers, token.width, token.kv_heads) == (1, 64, 2)


def test_every_point_has_a_name_of_its_own_that_params_yaml_accepts(searching: Searching) -> None:
    study = searching()
    trials = [trial_study(study, point) for point in points(study)]
    assert len({cell.name for _, cell in trials}) == len(points(study)) == 32
    assert all(NAME.fullmatch(cell.variant or "") for _, cell in trials)


def test_a_long_name_is_cut_and_still_its_own(searching: Searching) -> None:
    study = searching(("base: {}", f"{'b' * 60}: {{}}"), ("variant: base", f"variant: {'b' * 60}"),
                      ("variant: [base]", f"variant: [{'b' * 60}]"))  # fmt: skip
    names = {cell.variant for point in points(study) for _, cell in [trial_study(study, point)]}
    assert len(names) == 16
    assert {len(name or "") for name in names} == {64}


def test_the_known_point_is_the_variant_itself(searching: Searching) -> None:
    study = searching()
    (known,) = known_points(study)
    own = {"block_length": 4, "block_layers": 1, "token_layers": 1, "token_width": 32, "prefix_length": 2}
    assert known == own


def test_a_limit_is_broken_by_the_share_that_exceeds_it(searching: Searching) -> None:
    study = searching()
    vocabulary = allocation(study).vocabulary
    total = cost(*trial_study(study, known_points(study)[0]), vocabulary).total_parameters
    limited = searching(("  tokens: 2560", f"  tokens: 2560\n  constraints: {{total_parameters: {total}}}"))
    found = {tuple(point.items()): allocation(limited).violations(point) for point in points(limited)}
    for items, over in found.items():
        parameters = cost(*trial_study(study, dict(items)), vocabulary).total_parameters
        assert over == {"total_parameters": pytest.approx(parameters / total - 1), "fits": 0.0}
    assert 0 < sum(over["total_parameters"] <= 0 for over in found.values()) < len(found)


def test_a_points_recipe_goes_over_its_models_which_goes_over_its_variants(searching: Searching) -> None:
    study = searching(
        ("base: {}", "base: {pretrain: {learning_rate: 0.03, weight_decay: 0.3, warmup_steps: 2}}"),
        ("space: {", "space: {learning_rate: [0.05, 0.06], "),
        ("evaluate: {}", "recipes: {block-s-4-base: {learning_rate: 0.04, warmup_steps: 3}}\nevaluate: {}"),
        ("  enqueue: [{block_length: 4}]\n", ""),
    )
    found = {
        (point["block_length"], point["learning_rate"]): pretraining(*trial_study(study, point))
        for point in points(study)
    }
    for (length, rate), pretrain in found.items():
        assert (pretrain.learning_rate, pretrain.weight_decay) == (rate, 0.3)
        assert pretrain.warmup_steps == (3 if length == 4 else 2)
        assert pretrain.tokens == 2560


def test_a_warm_up_longer_than_a_trial_does_not_fit(searching: Searching) -> None:
    study = searching(("space: {", "space: {batch_size: [8, 32], "))
    fits = {(point["batch_size"], allocation(study).violations(point)["fits"]) for point in points(study)}
    assert fits == {(8, 0.0), (32, 1.0)}


def test_parts_that_do_not_fit_are_no_model(searching: Searching) -> None:
    study = searching(("space: {", "space: {token_kv_heads: [3], "), ("  enqueue: [{block_length: 4}]\n", ""))
    over = allocation(study).violations(points(study)[0])
    assert over == {"fits": 1.0}


MISTAKES = [
    ("setting: short", "setting: shrot", r"search\.setting: 'shrot' is wrong; did you mean 'short'"),
    ("size: s\n  variant", "size: q\n  variant", r"search\.size: 'q' is wrong"),
    ("variant: base\n", "variant: bace\n", r"search\.variant: 'bace' is wrong; did you mean 'base'"),
    ("[loss, tokens_per_second]", "[]", r"search\.objectives: \[\] is wrong; name one or both"),
    ("[loss, tokens_per_second]", "[loss, los]", r"search\.objectives: 'los' is wrong; did you mean 'loss'"),
    ("trials: 3", "trials: 0", r"search\.trials: 0 is wrong; it must be greater"),
    ("block_length: [2, 4],", "block_length: [3],", r"search\.space\.block_length: 3 is wrong; it must divide"),
    ("block_length: [2, 4],", "", r"search\.space\.block_length: \[\] is wrong; name at least one"),
    ("block_layers: [1, 2]", "block_layer: [1, 2]", r"search\.space\.block_layer: unknown key; did you mean"),
    ("block_layers: [1, 2]", "block_layers: [2, 3]", r"search\.enqueue\.block_layers: 1 is wrong; .* it is the study"),
    ("space: {", "space: {embedder_width: [8], ", r"search\.space\.embedder_width: .* no effect with lookup"),
    ("enqueue: [{block_length", "enqueue: [{block_lenght", r"search\.enqueue: 'block_lenght' is wrong; did you mean"),
    (
        "tokens: 2560",
        "tokens: 512",
        r"warmup_steps: 4 is wrong; a trial of search\.tokens takes 2 steps .* at most 1, or",
    ),
    ("space: {", "space: {learning_rate: [0], ", r"search\.space\.learning_rate: 0\.0 is wrong; it must be gr"),
    (
        "space: {",
        "space: {matrix_momentum: [0.9], ",
        r"search\.space\.matrix_momentum: .* no effect with optimizer adamw",
    ),
    (
        "space: {",
        "space: {learning_rate: [0.02], ",
        r"search\.enqueue\.learning_rate: 0\.01 is wrong; .* none of",
    ),
    ("batch_sizes: [2]", "batch_sizes: []\n", r"benchmark\.batch_sizes: \[\] is wrong; search\.throughput: roofline"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES)
def test_a_mistake_is_one_clear_line(searching: Searching, right: str, wrong: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        searching(("  setting:", "  throughput: roofline\n  setting:"), (right, wrong))
    assert "\n" not in str(error.value)
    assert re.search(message, str(error.value)), str(error.value)
