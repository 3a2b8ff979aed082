"""What a typed study must still fulfil: ranges, names, and keys that refer to each other."""

from __future__ import annotations

import re

from pipeline.study.architecture_checks import check_effects, check_sizes, check_starts, check_variants
from pipeline.study.cells import cells, model_config, whole_cells
from pipeline.study.recipe_checks import check_recipes, check_steps
from pipeline.study.rules import all_positive, choice, divides, positive, require
from pipeline.study.run_checks import check_run
from pipeline.study.schema import Corpus, RecallTexts, Study
from pipeline.study.search_checks import check_search
from pipeline.study.tune_checks import check_tune
from pipeline.study.waypoints import check_reached, check_waypoints

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}")
NAME_RULE = "a name has letters, digits and '_', starts with a letter or digit, and is at most 64 long"
MOST_CELLS = 1000
MOST_PAIRS = 30
"""As many cities as :mod:`pipeline.data.recall` has."""

MOST_TOKENS = 2**31 - 64
SOURCES = ("sotu", "files", "huggingface", "recall")
FORMATS = ("huggingface", "published")
PRECISIONS = ("auto", "fp32", "bf16")


def check(study: Study) -> None:
    """Raise :class:`UserError` for the first thing that is wrong, naming its key."""
    _check_names(study)
    _check_corpus(study)
    check_sizes(study)
    check_variants(study)
    _check_pretrained(study)
    _check_extent(study)
    _check_budgets(study.pretrain.budgets)
    _check_grid(study)
    _check_pretrain(study)
    _check_evaluate(study)
    _check_benchmark(study)
    check_search(study)
    check_tune(study)
    check_run(study.run)
    for cell in cells(study):
        if cell.family != "pretrained":
            model_config(study, cell, vocabulary=64)
            check_steps(study, cell)
            check_reached(study, cell)
    check_starts(study)
    check_effects(study)


def _check_names(study: Study) -> None:
    named = {
        "name": [study.name],
        "sizes": study.sizes,
        "variants": study.variants,
        "pretrained": study.pretrained,
        "benchmark.settings": study.benchmark.settings,
    }
    for key, names in named.items():
        seen: dict[str, str] = {}
        for name in names:
            require(NAME.fullmatch(name) is not None, key, name, NAME_RULE)
            other = seen.setdefault(name.lower(), name)
            right = f"{other!r} is the same name where upper and lower case count as one; rename it"
            require(other == name, key, name, right)


def _check_corpus(study: Study) -> None:
    corpus, tokenize = study.corpus, study.tokenize
    choice("corpus.source", corpus.source, SOURCES)
    if corpus.source == "files":
        require(
            bool(corpus.files),
            "corpus.files",
            corpus.files,
            "source 'files' needs paths or globs, such as [texts/*.txt]",
        )
    if corpus.source == "huggingface":
        name = corpus.dataset.name if corpus.dataset else ""
        require(
            bool(name), "corpus.dataset.name", name, "source 'huggingface' needs a dataset's name, such as user/texts"
        )
    if corpus.source == "recall":
        _check_recall_texts(corpus)
    for key in ("validation_fraction", "test_fraction"):
        value = getattr(corpus, key)
        require(0 < value < 0.5, f"corpus.{key}", value, "it is above 0 and below 0.5, such as 0.05")
    positive("corpus.max_documents", corpus.max_documents)
    if tokenize.tokenizer is None:
        require(
            tokenize.vocabulary >= 258,
            "tokenize.vocabulary",
            tokenize.vocabulary,
            "byte-level BPE needs at least 258 (256 bytes, end of text, padding)",
        )
    right = f"token ids go up to {MOST_TOKENS:,}"
    require(tokenize.vocabulary <= MOST_TOKENS, "tokenize.vocabulary", tokenize.vocabulary, right)
    right = "name a tokenizer.json or a model of the hub, or leave it null to train one"
    require(tokenize.tokenizer != "", "tokenize.tokenizer", "", right)
    require(tokenize.end_of_text != "", "tokenize.end_of_text", "", "it is a token's text, such as <|endoftext|>")
    positive("tokenize.shard_tokens", tokenize.shard_tokens)
    for split, paths in tokenize.indexed.items():
        key = f"tokenize.indexed.{split}"
        # Evaluation reads the test documents' text, which token files lack.
        choice("tokenize.indexed", split, ("train", "validation"))
        require(bool(paths), key, paths, "it needs at least one path of a .bin and .idx pair, given without the ending")
        require(
            tokenize.tokenizer is not None, key, paths, "it needs tokenize.tokenizer, the one the files were made with"
        )


def _check_recall_texts(corpus: Corpus) -> None:
    recall = corpus.recall or RecallTexts()
    _check_symbols("corpus.recall.symbols", recall.symbols)
    pairs, symbols = recall.pairs, recall.symbols or MOST_PAIRS
    require(bool(pairs), "corpus.recall.pairs", pairs, "source 'recall' needs numbers of pairs, such as [2, 4, 8]")
    for count in pairs:
        require(1 <= count <= symbols, "corpus.recall.pairs", count, f"a text lists 1 to {symbols} pairs")
    if recall.lines is not None:
        right = f"a text of {max(pairs)} pairs has more lines, at least one to ask for one of them"
        require(recall.lines > max(pairs), "corpus.recall.lines", recall.lines, right)
    right = "source 'recall' has no end; say how many documents to make, such as 10000"
    require(corpus.max_documents is not None, "corpus.max_documents", None, right)


def _check_symbols(key: str, symbols: int | None) -> None:
    require(symbols is None or 2 <= symbols <= MOST_PAIRS, key, symbols, f"it is 2 to {MOST_PAIRS}, or null for all")


def _uptraining_sources(study: Study) -> list[str]:
    vanilla = [cell.name for cell in whole_cells(study) if cell.family == "vanilla"]
    return vanilla + [name for name, model in study.pretrained.items() if model.size]


def _check_block_lengths(study: Study, key: str, lengths: list[int]) -> None:
    for value in lengths:
        require(value >= 1, key, value, "a block holds at least 1 token")
        divides(key, value, "pretrain.context_length", study.pretrain.context_length)


def _check_pretrained(study: Study) -> None:
    for name, model in study.pretrained.items():
        require(model.path != "", f"pretrained.{name}.path", "", "name a folder or a model of the hub")
        choice(f"pretrained.{name}.format", model.format, FORMATS)
        if model.size is not None:
            choice(f"pretrained.{name}.size", model.size, study.sizes)


def _check_extent(study: Study) -> None:
    """Before any cell is made: four lists of a hundred would make a hundred million."""
    grid = study.grid
    block, uptrained = grid.block, grid.uptrained
    vanilla_cells = len(grid.vanilla.size)
    block_cells = len(block.size) * len(block.block_length) * len(block.variant)
    uptrained_cells = len(uptrained.source) * len(uptrained.block_length) * len(uptrained.variant)
    count = (vanilla_cells + block_cells + uptrained_cells) * len(grid.seed) * (1 + len(study.pretrain.budgets))
    right = f"a study has at most {MOST_CELLS:,} cells; split it into several"
    require(count <= MOST_CELLS, "grid", f"{count:,} cells", right)


def _check_budgets(budgets: list[int]) -> None:
    for budget in budgets:
        positive("pretrain.budgets", budget)
        require(budgets.count(budget) == 1, "pretrain.budgets", budget, "it stands there twice; name it once")


def _check_grid(study: Study) -> None:
    grid = study.grid
    for key, used, defined in (
        ("grid.vanilla.size", grid.vanilla.size, study.sizes),
        ("grid.block.size", grid.block.size, study.sizes),
        ("grid.block.variant", grid.block.variant, study.variants),
        ("grid.uptrained.variant", grid.uptrained.variant, study.variants),
        ("grid.uptrained.source", grid.uptrained.source, _uptraining_sources(study)),
    ):
        for name in used:
            choice(key, name, defined)
    _check_block_lengths(study, "grid.block.block_length", grid.block.block_length)
    _check_block_lengths(study, "grid.uptrained.block_length", grid.uptrained.block_length)
    for name in grid.block.variant:
        initialised = study.variants[name].init is not None
        require(not initialised, "grid.block.variant", name, "it has init, so it belongs under grid.uptrained")
    for name in grid.uptrained.variant:
        initialised = study.variants[name].init is not None
        require(initialised, "grid.uptrained.variant", name, f"say how it starts: variants.{name}.init")
    for value in grid.seed:
        require(value >= 0, "grid.seed", value, "a seed is 0 or more")
    for name in grid.block.size:
        require(
            study.sizes[name].layers >= 2,
            f"sizes.{name}.layers",
            study.sizes[name].layers,
            "a block transformer splits its layers, so it needs at least 2",
        )
    names = [cell.name for cell in cells(study)]
    require(
        bool(names),
        "grid",
        "no cell",
        "name at least one size under grid.vanilla.size, or size, block_length and variant under grid.block",
    )
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        require(
            seen[name.lower()] is name,
            "grid",
            name,
            f"two cells are called {name!r} and {other!r}; remove the duplicate (upper and lower case count as one)",
        )


def _check_pretrain(study: Study) -> None:
    pretrain = study.pretrain
    all_positive("pretrain", pretrain, ("context_length", "validate_every", "validation_tokens"))
    choice("pretrain.precision", pretrain.precision, PRECISIONS)
    check_recipes(study)
    hardware = study.hardware
    choice("hardware.strategy", hardware.strategy, ("auto", "ddp", "fsdp"))
    choice("hardware.accelerator", hardware.accelerator, ("auto", "cpu", "gpu"))
    all_positive("hardware", hardware, ("devices", "num_nodes", "micro_batch_size", "checkpoint_every", "log_every"))
    require(hardware.workers is None or hardware.workers >= 0, "hardware.workers", hardware.workers, "it is 0 or more")


def _check_evaluate(study: Study) -> None:
    evaluate, context = study.evaluate, study.pretrain.context_length
    all_positive("evaluate", evaluate, ("limit", "stride", "max_documents", "long_context_tokens"))
    right = f"it is at most pretrain.context_length ({context}), so that no token is skipped"
    require((evaluate.stride or 1) <= context, "evaluate.stride", evaluate.stride, right)
    for key in ("few_shot", "needle", "copy", "recall", "samples"):
        require(getattr(evaluate, key) >= 0, f"evaluate.{key}", getattr(evaluate, key), "it is 0 or more")
    for multiple in evaluate.long_context:
        positive("evaluate.long_context", multiple)
    _check_symbols("evaluate.recall_symbols", evaluate.recall_symbols)
    choice("evaluate.precision", evaluate.precision, PRECISIONS)
    check_waypoints(study)


def _check_benchmark(study: Study) -> None:
    benchmark = study.benchmark
    choice("benchmark.precision", benchmark.precision, PRECISIONS)
    require(
        bool(benchmark.settings),
        "benchmark.settings",
        {},
        "name a setting, such as {short: {prompt: 32, new_tokens: 96}}",
    )
    for name, setting in benchmark.settings.items():
        all_positive(f"benchmark.settings.{name}", setting, ("prompt", "new_tokens"))
    for size in benchmark.batch_sizes:
        positive("benchmark.batch_sizes", size)
    fraction = benchmark.memory_fraction
    require(0 < fraction <= 0.95, "benchmark.memory_fraction", fraction, "it is above 0 and at most 0.95")
    positive("benchmark.repeats", benchmark.repeats)
    require(benchmark.warmup >= 0, "benchmark.warmup", benchmark.warmup, "it is 0 or more")
