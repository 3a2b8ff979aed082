"""docs/results/changes.md against the records that it is from."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from pipeline.base.files import read_json
from pipeline.models.config import BlockConfig, PrefixConfig
from pipeline.study import find_cell, load_study, model_config
from tests.conftest import ROOT
from tests.result_pages import copies_by_offset

FOLDER = ROOT / "docs/results/changes"
CONTEXTS_FOLDER, MEMORIES = FOLDER.parent / "contexts", FOLDER.parent / "memory/results/evaluate"
HEADS = {path.stem: read_json(path) for path in (FOLDER / "results/heads/evaluate").iterdir()}
ALONE = ("heads4", "overlap", "mixed4", "local2", "memory128")
CONTEXTS = tuple(f"block-19m-4-contexts{form}" for form in ("1", "2", "4", "1_wide", "4_wide"))
PAGE = (ROOT / "docs/results/changes.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
STUDIES = " ".join((ROOT / "docs/studies.md").read_text(encoding="utf-8").split())
LOG = (ROOT / "docs/performance-log.md").read_text(encoding="utf-8")
SPEEDS = {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / "speed.json")}
SPEEDS_SINCE = {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / "speed_since.json")}
SPEEDS_CONVOLUTION = {
    record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / "speed_convolution.json")
}
SPEEDS_ALONE = {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / "speed_alone.json")}
SPEEDS_85M = {record["cell"]["name"][:-2]: record["settings"] for record in read_json(FOLDER / "speed_85m.json")}
MODELS = sorted({path.stem[:-2] for path in (FOLDER / "results/evaluate").iterdir()} | set(SPEEDS))


def evaluations(model: str, folder: Path = FOLDER) -> dict[str, Any]:
    paths = (folder / "results/evaluate").glob(f"{model}-[01].json")
    return {path.stem[-1]: read_json(path) for path in paths}


def plain(model: str) -> str | None:
    family, size, *rest = model.split("-")
    base = f"block-{size}-{rest[0]}-base" if family == "block" else model
    return None if base == model else base


def rows(model: str) -> list[list[str]]:
    found = re.findall(rf"^\| `{model}` \|(.*)\|$", PAGE, re.MULTILINE)
    return [[entry.strip() for entry in row.split("|")] for row in found]


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_its_losses_and_speeds(model: str) -> None:
    found, base = evaluations(model), plain(model)
    losses = {seed: scored["loss"] for seed, scored in found.items()}
    beside = {seed: scored["loss"] for seed, scored in evaluations(base).items()} if base else {}
    told = [f"{losses[seed]:.3f}" if seed in losses else "" for seed in "01"]
    told.append(f"{mean(losses.values()):.3f}" if len(losses) == 2 else "")
    told.append(" ".join(f"{losses[seed] - beside[seed]:+.3f}" for seed in sorted(losses) if seed in beside))
    for setting in ("decode_heavy", "prefill_heavy"):
        speed = SPEEDS[model][setting]["tokens_per_second"] if model in SPEEDS else None
        share = f" ({speed / SPEEDS[base][setting]['tokens_per_second']:.0%})" if speed and base else ""
        told.append(f"{speed:,.0f}{share}" if speed else "")
    assert rows(model)[0] == told


@pytest.mark.parametrize(
    ("model", "speeds"),
    [(model, speeds) for speeds in (SPEEDS_SINCE, SPEEDS_CONVOLUTION, SPEEDS_ALONE) for model in speeds],
    ids=[
        *SPEEDS_SINCE,
        *(f"{model}, later" for model in SPEEDS_CONVOLUTION),
        *(f"{model}, alone" for model in SPEEDS_ALONE),
    ],
)
def test_a_model_has_its_speed_on_a_later_engine(model: str, speeds: dict[str, Any]) -> None:
    base = plain(model)
    told = []
    for setting in ("decode_heavy", "prefill_heavy"):
        speed, limit = (speeds[model][setting][key] for key in ("tokens_per_second", "roofline_fraction"))
        share = f"{speed / speeds[base][setting]['tokens_per_second']:.0%}" if base else ""
        told += [f"{speed:,.0f}", share, f"{limit:.0%}"]
    assert told in rows(model)


@pytest.mark.parametrize("model", SPEEDS_85M)
def test_the_performance_log_has_the_speed_of_every_form_at_85m(model: str) -> None:
    told = []
    for setting in ("decode_heavy", "prefill_heavy"):
        speed, limit = (SPEEDS_85M[model][setting][key] for key in ("tokens_per_second", "roofline_fraction"))
        told += [f"{speed:,.0f}", f"{limit:.0%}"]
    assert f"| `{model}` | {' | '.join(told)} |" in LOG


@pytest.mark.parametrize("model", [model for model in MODELS if evaluations(model)])
def test_a_model_has_its_copies_by_offset(model: str) -> None:
    family, _, *rest = model.split("-")
    length = int(rest[0]) if family == "block" else 1
    assert rows(model)[-1] == copies_by_offset(evaluations(model).values(), length)


def test_every_training_is_on_record_and_took_the_steps_that_the_page_tells() -> None:
    for path in (FOLDER / "results/evaluate").iterdir():
        trained = read_json(FOLDER / "results/pretrain" / path.name)
        assert (f"{trained['tokens']:,}", f"{trained['steps']:,}") == ("100,007,936", "3,052")
        assert not trained["diverged"]


def loss(model: str, folder: Path = FOLDER) -> float:
    return mean(scored["loss"] for scored in evaluations(model, folder).values())


def test_what_more_local_tokens_heads_and_overlap_bring() -> None:
    eight, four, both = (evaluations(f"block-19m-4-{form}") for form in ("local8_all", "local4_all", "local2_all"))
    less = [f"{four[seed]['loss'] - eight[seed]['loss']:.3f}" for seed in "01"]
    assert f"by {less[0]} and {less[1]} nats, two seeds" in WORDS
    assert f"{loss('block-19m-4-local4_all') - loss('block-19m-4-local8_all'):.2f} nats more (3.243)" in WORDS
    assert f"add {loss('block-19m-4-local4') - loss('block-19m-4-local4_all'):.3f} nats to four local tokens" in WORDS
    alone = evaluations("block-19m-4-local2")
    assert f"and {alone['0']['loss'] - both['0']['loss']:.3f} to two, by one seed" in WORDS
    assert f"{loss('block-19m-4-overlap'):.3f}" == f"{loss('block-19m-4-base'):.3f}"


def of_form(length: int, form: str) -> dict[str, Any]:
    """Evaluations by seed; memories' are partly of their own page, where the first records call them lookups."""
    found = evaluations(f"block-19m-{length}-{form}")
    if "memory" not in form or found:
        return found
    names = (form, form.replace("memory", "lookup"))
    return {
        path.stem[-1]: read_json(path) for name in names for path in MEMORIES.glob(f"block-19m-{length}-{name}-?.json")
    }


def more(length: int, form: str, beside: str = "base") -> list[float]:
    """Nats per token by which `form`'s loss is above that of `beside`, by seed."""
    found, other = of_form(length, form), of_form(length, beside)
    return [found[seed]["loss"] - other[seed]["loss"] for seed in sorted(found.keys() & other.keys())]


def second_copies(length: int, form: str) -> list[float]:
    """Nats per token of second copies of text, over all offsets, by seed."""
    found = of_form(length, form)
    return [mean(copy["second"] for copy in found[seed]["copies"] if copy["kind"] == "text") for seed in sorted(found)]


def copies_more(length: int, form: str) -> float:
    return mean(second_copies(length, form)) - mean(second_copies(length, "base"))


@pytest.mark.parametrize("form", ALONE)
def test_what_a_change_alone_does_to_loss_and_copies(form: str) -> None:
    told = []
    for length in (2, 4, 8):
        seeds = more(length, form)
        told += [f"{mean(seeds):+.3f}", " ".join(f"{seed:+.3f}" for seed in seeds)]
    assert rows(form) == [[*told, *(f"{copies_more(length, form):+.2f}" for length in (2, 4, 8))]]


def test_what_memories_alone_bring() -> None:
    alone = [-mean(more(length, "memory128")) for length in (2, 4, 8)]
    beside = [-mean(more(length, "memory128_local2_all", "local2_all")) for length in (2, 4)]
    assert "longer blocks**: {:.3f} nats at block length 2, {:.3f} at 4, {:.3f} at 8.".format(*alone) in WORDS
    assert "heads and overlap they bring as much: {:.3f} and {:.3f}.".format(*beside) in WORDS
    together = [
        loss(f"block-19m-{length}-base")
        - mean(found["loss"] for found in of_form(length, "memory128_local2_all").values())
        for length in (2, 4, 8)
    ]
    assert "{:.2f} nats at block length 2, {:.2f} at 4 and {:.2f} at 8, with".format(*alone) in WORDS
    assert "heads and overlap {:.2f}, {:.2f} and {:.2f}.".format(*together) in WORDS
    eight = [f"{mean(found['loss'] for found in of_form(8, form).values()):.3f}" for form in ("memory128", "base")]
    assert "block length 8 has {} nats with them and {} without".format(*eight) in WORDS
    memories, vanilla = of_form(2, "memory128"), evaluations("vanilla-5m")
    ahead = [vanilla[seed]["loss"] - memories[seed]["loss"] for seed in "01"]
    assert f"{loss('block-19m-2-memory128'):.3f} against {loss('vanilla-5m'):.3f}. They are" in WORDS
    assert "{:.3f} and {:.3f} ahead by seed, less than two seeds decide".format(*ahead) in WORDS
    assert max(ahead) < 0.02


def test_what_local_tokens_and_mixing_alone_bring_at_block_length_2() -> None:
    gains = [-mean(more(length, "local2")) for length in (2, 4, 8)]
    assert "{:.3f} at block length 2, {:.3f} at 4, {:.3f} at 8.".format(*gains) in WORDS
    first, second = more(2, "local2_all", "local2")
    assert f"{loss('block-19m-2-local2_all'):.3f} instead of {loss('block-19m-2-local2'):.3f}" in WORDS
    assert f"{-first:.3f} less in one seed, {second:.3f} more in the other" in WORDS
    short, *longer = (-mean(more(length, "mixed4")) for length in (2, 4, 8))
    assert f"{short:.3f}, which two seeds do not decide, {longer[0]:.3f} and {longer[1]:.3f}." in WORDS
    assert f"it falls to {loss('block-19m-2-mixed4'):.3f} only" in WORDS
    behind = [mixed - local for mixed, local in zip(more(2, "mixed4"), more(2, "local2"), strict=True)]
    assert "behind two local tokens by {:.3f} and {:.3f} nats".format(*behind) in WORDS
    assert mean(more(2, "mixed4")) > mean(more(2, "local2")) / 2
    added = [-seed for seed in more(2, "mixed4_all", "mixed4")]
    assert "At 2 they do add to mixing: {:.3f} and {:.3f} nats".format(*added) in WORDS


def test_heads_and_overlap_alone_gain_less_than_two_seeds_decide() -> None:
    gains = [more(2, form) for form in ("heads4", "overlap")]
    assert "take off {:.3f} and {:.3f} at block length 2.".format(*(-mean(seeds) for seeds in gains)) in WORDS
    assert all(-0.02 < seed < 0 for seeds in gains for seed in seeds)
    heads, overlap = (more(8, form) for form in ("heads4", "overlap"))
    assert (
        "heads take off {:.3f} and {:.3f} by seed, overlap adds {:.3f} and {:.3f}".format(
            *(-seed for seed in heads), *overlap
        )
        in WORDS
    )
    lost = [both - alone for both, alone in zip(more(8, "mixed4_all"), more(8, "mixed4"), strict=True)]
    assert "worse by {:.3f} and {:.3f} than mixing alone".format(*lost) in WORDS


def test_what_changes_alone_keep_of_the_speed_and_on_which_rates() -> None:
    kept = {
        model: [
            SPEEDS_ALONE[model][setting]["tokens_per_second"] / SPEEDS_ALONE[base][setting]["tokens_per_second"]
            for setting in ("decode_heavy", "prefill_heavy")
        ]
        for model in SPEEDS_ALONE
        if (base := plain(model))
    }
    cheap = [kept[f"block-19m-{length}-{form}"][0] for length in "28" for form in ("heads4", "overlap", "mixed4")]
    percent = WORDS.replace(" %", "%")
    assert f"mixing keep {min(cheap):.0%} or more decode-heavy" in percent
    local = [kept[f"block-19m-{length}-local2"][0] for length in "28"]
    assert "tokens keep {:.0%} at block length 2 and {:.0%} at 8**, decode-heavy".format(*local) in percent
    memories = [share for length in "28" for share in kept[f"block-19m-{length}-memory128"]]
    assert "({:.0%} and {:.0%}), and more at 8: {:.0%} decode-heavy and {:.0%} prefill".format(*memories) in percent
    heads = [kept[f"block-19m-{length}-heads4"][1] for length in "28"]
    assert "`heads4` keeps {:.0%} at block length 2 and {:.0%} at 8".format(*heads) in percent
    measured = [record["rates"] for record in read_json(FOLDER / "speed_alone.json")]
    products, reads = ([rates[key] / 1e12 for rates in measured] for key in ("flops", "read_bandwidth"))
    assert f"{min(products):.0f} to {max(products):.0f} TFLOP/s and {min(reads):.2f} to {max(reads):.2f} TB/s" in WORDS
    assert (products[0], reads[0]) == (min(products), min(reads))


def test_what_changes_do_to_copies() -> None:
    saved = {form: [-copies_more(length, form) for length in (2, 4)] for form in (*ALONE, "local2_all")}
    heads, overlap, local, memories = (saved[form] for form in ("heads4", "overlap", "local2", "memory128"))
    assert (
        f"by {heads[0]:.2f} and {overlap[0]:.2f} nats at block length 2, {heads[1]:.2f} and {overlap[1]:.2f}" in WORDS
    )
    by_seed = {
        (length, form): [
            after - before
            for before, after in zip(second_copies(length, "base"), second_copies(length, form), strict=True)
        ]
        for length, form in ((4, "heads4"), (2, "mixed4"))
    }
    first, second = by_seed[4, "heads4"]
    assert f"At 4 heads do so by {-first:.2f} in one seed and {-second:.2f} in the other" in WORDS
    assert f"at block length 2**, by {local[0]:.2f} nats, and hardly at 4" in WORDS
    first, second = by_seed[2, "mixed4"]
    assert f"Mixing alone takes off {saved['mixed4'][1]:.2f} at 4" in WORDS
    assert f"it is worse there by {first:.2f} and {second:.2f}" in WORDS
    long = -copies_more(8, "memory128")
    assert f"block length 8**, by {long:.2f} nats, where nothing else does; at 4, by {memories[1]:.2f}; at 2" in WORDS
    assert f"at 2, by {memories[0]:.2f}, no more than heads" in WORDS
    assert f"half a nat at block length 4, {saved['local2_all'][0]:.2f} at 2" in WORDS
    vanilla = mean(
        copy["second"]
        for found in evaluations("vanilla-5m").values()
        for copy in found["copies"]
        if copy["kind"] == "text"
    )
    behind = loss("block-19m-2-heads4") - loss("vanilla-5m")
    assert f"({mean(second_copies(2, 'heads4')):.2f} against {vanilla:.2f}), and their loss is {behind:.2f}" in WORDS


def places(model: str) -> list[float]:
    scores = evaluations(model, CONTEXTS_FOLDER).values()
    return [mean(place) for place in zip(*(scored["loss_by_block_position"] for scored in scores), strict=True)]


@pytest.mark.parametrize("model", CONTEXTS)
def test_a_model_with_more_contexts_has_its_losses_and_training_flops(model: str) -> None:
    found = evaluations(model, CONTEXTS_FOLDER)
    trained = [read_json(CONTEXTS_FOLDER / f"results/pretrain/{model}-{seed}.json") for seed in "01"]
    told = [f"{found[seed]['loss']:.3f}" for seed in "01"] + [f"{loss(model, CONTEXTS_FOLDER):.3f}"]
    told.append(", ".join(f"{place:.3f}" for place in places(model)))
    told.append(f"{mean(record['training_flops'] for record in trained):.2e}")
    assert rows(model) == [told]
    for record in trained:
        assert (f"{record['tokens']:,}", f"{record['steps']:,}") == ("100,007,936", "3,052")
        assert not record["diverged"]


def test_what_more_contexts_and_width_bring() -> None:
    one, two, four, one_wide, four_wide = (loss(model, CONTEXTS_FOLDER) for model in CONTEXTS)
    assert f"by {four - one:.3f} nats, and by {four_wide - one_wide:.3f} with the wide token decoder" in WORDS
    assert f"{one - one_wide:.2f}" == f"{four - four_wide:.2f}"
    fewer, more = (evaluations(model, CONTEXTS_FOLDER) for model in CONTEXTS[:2])
    worse = [more[seed]["loss"] - fewer[seed]["loss"] for seed in "01"]
    assert "lie between**: {:.3f} worse than one, by {:.3f} and {:.3f} of equal".format(two - one, *worse) in WORDS
    assert f"**A wide token decoder gains {one - one_wide:.2f} nats**, with one context and with four" in WORDS
    flops = [read_json(CONTEXTS_FOLDER / f"results/pretrain/{model}-0.json")["training_flops"] for model in CONTEXTS]
    assert f"for {flops[3] / flops[0]:.1f} and {flops[4] / flops[2]:.1f} times the training FLOPs" in WORDS
    assert f"**One prefix position less costs {one - loss('block-19m-4-base'):.3f}**" in WORDS


def test_where_in_a_block_more_contexts_lose() -> None:
    narrow, wide = (
        [after - before for before, after in zip(places(fewer), places(more), strict=True)]
        for fewer, more in ((CONTEXTS[0], CONTEXTS[2]), CONTEXTS[3:])
    )
    assert all((lost.index(min(lost)), lost.index(max(lost))) == (0, 2) for lost in (narrow, wide))
    first, third = (f"({narrow[place]:.2f}, wide {wide[place]:.2f})" for place in (0, 2))
    assert f"least at the first {first} and most at the third {third}" in WORDS


def more_with_heads(form: str) -> tuple[float, float]:
    """Nats per token by which `form`'s only training is above plain's same seed, and above plain's mean."""
    model, found = "block-19m-4-base", HEADS[f"block-19m-4-{form}-0"]["loss"]
    return found - evaluations(model)["0"]["loss"], found - loss(model)


@pytest.mark.parametrize("form", ["base", "block4", "block2", "token4", "token2"])
def test_a_head_count_has_its_heads_and_loss(form: str) -> None:
    study, model = load_study(ROOT / "studies/heads_h100.yaml"), f"block-19m-4-{form}"
    config = model_config(study, find_cell(study, f"{model}-0"), 16384)
    assert isinstance(config, BlockConfig)
    assert isinstance(config.token_decoder, PrefixConfig)
    parts = (config.block_decoder, config.token_decoder.stack)
    told = [f"{part.heads} of {part.width // part.heads}" for part in parts]
    if form == "base":
        told += [f"{evaluations(model)[seed]['loss']:.3f}" for seed in "01"]
        told += [f"{loss(model):.3f}", "", ""]
    else:
        told += [f"{HEADS[f'{model}-0']['loss']:.3f}", "", "", *(f"{more:+.3f}" for more in more_with_heads(form))]
    assert told in rows(model)


def test_what_few_and_wide_heads_bring() -> None:
    forms = ("block4", "block2", "token4", "token2")
    assert sorted(HEADS) == sorted(f"block-19m-4-{form}-0" for form in forms)
    worse = {form: more_with_heads(form) for form in forms}
    assert min(more for pair in worse.values() for more in pair) > -0.02
    assert min(worse, key=worse.__getitem__) == "token4"
    ahead, behind = -worse["token4"][0], worse["token4"][1]
    assert f"is {ahead:.3f} ahead of plain's same seed and {behind:.3f} behind its mean" in WORDS
    seed, average = worse["block2"]
    assert f"are worse by {average:.3f}** than plain's mean, by {seed:.3f} than its same seed" in WORDS
    before = evaluations("block-19m-4-heads4")
    first, second = (before[seed]["loss"] for seed in "01")
    assert f"the two of `heads4` are {first - second:.3f} apart" in WORDS
    again = HEADS["block-19m-4-block4-0"]
    assert again["cell"]["fingerprint"] == before["0"]["cell"]["fingerprint"]
    assert f"trained again**, have {again['loss']:.3f} instead of {first:.3f}: no gain in seed 0 again" in WORDS
    assert f"Seed 1, which had one ({second:.3f}), was not trained again" in WORDS


def test_head_counts_were_trained_as_the_page_tells() -> None:
    plain_one = read_json(FOLDER / "results/pretrain/block-19m-4-base-0.json")
    for name, scored in HEADS.items():
        trained = read_json(FOLDER / f"results/heads/pretrain/{name}.json")
        assert (f"{trained['tokens']:,}", f"{trained['steps']:,}") == ("100,007,936", "3,052")
        assert not trained["diverged"]
        assert all(trained[key] == plain_one[key] for key in ("parameters", "training_flops"))
        for record in (trained, scored):
            ran = record["environment"]
            told = f"{ran['device']}, torch {ran['torch']}, {ran['precision']}, revision {ran['revision'][:7]}"
            assert f"`studies/heads_h100.yaml`, up to four at a time on an {told}." in WORDS
            assert not ran["dirty"]
        assert "copies" not in scored


def test_the_studies_page_counts_the_cells_that_were_run() -> None:
    changes, contexts = (
        len(list((folder / "results/evaluate").glob("*.json"))) for folder in (FOLDER, CONTEXTS_FOLDER)
    )
    memories = [path for path in MEMORIES.glob("*.json") if "_gqa" not in path.name]
    assert f"Of the cells of `changes_h100` {changes} were run" in STUDIES
    assert f"and {len(memories)} more with [memories]" in STUDIES
    assert f"Of the 12 of `contexts_h100` {contexts} were" in STUDIES
    assert f"Of the 42 of `heads_h100` {len(HEADS)} were" in STUDIES


def test_a_convolution_costs_loss() -> None:
    carried = [
        read_json(FOLDER.parent / f"measures/results/evaluate/block-19m-4-carried_all-{seed}.json") for seed in "01"
    ]
    without = {
        "local4": mean(scored["loss"] for scored in evaluations("block-19m-4-local4_all").values()),
        "carried": mean(scored["loss"] for scored in carried),
    }
    worse = {
        form: mean(scored["loss"] for scored in evaluations(f"block-19m-4-{form}_convolution_all").values()) - loss
        for form, loss in without.items()
    }
    assert f"by {worse['local4']:.3f} nats beside four local tokens and by {worse['carried']:.3f} beside" in PAGE
    assert "({:.3f} and {:.3f} without it)".format(*without.values()) in PAGE


def test_the_log_has_the_forms_of_85m_on_an_h100() -> None:
    _, *records = read_json(FOLDER / "speed_85m_h100.json")
    assert len(records) == 8
    for record in records:
        told = [record["cell"]["name"][:-2]]
        for setting in ("decode_heavy", "prefill_heavy"):
            speed, limit = (record["settings"][setting][key] for key in ("tokens_per_second", "roofline_fraction"))
            told += [f"{speed:,.0f}", f"{100 * limit:.1f} %"]
        assert "| `{}` | {} | {} | {} | {} | {} |".format(*told, record["environment"]["revision"][:7]) in LOG


def test_the_log_has_the_plain_block_transformer_of_85m_on_an_h100() -> None:
    record = read_json(FOLDER / "speed_85m_h100.json")[0]
    decode, prefill = (record["settings"][setting] for setting in ("decode_heavy", "prefill_heavy"))
    assert decode["batch"] == 1920
    assert f"revision {record['environment']['revision'][:7]}" in LOG
    first, second = (
        f"{of['tokens_per_second']:,.0f} {{}}, {100 * of['roofline_fraction']:.0f} %" for of in (decode, prefill)
    )
    assert (
        first.format("tokens per second decode-heavy") + " of the limit, and " + second.format("prefill-heavy") in LOG
    )
