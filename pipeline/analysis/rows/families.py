"""Families: what a cell's models share a front by, and how families are named and ordered."""

from __future__ import annotations

import re

from pipeline.study import Cell, Study, model_config

KINDS = ("vanilla", "block", "uptrained", "pretrained")
GROUPED = "grouped-query"
ATTENTIONS = ("", GROUPED)
GENERATE = "transformers generate"
ORDER = [
    f"{kind}, {what}" if what else kind
    for kind in KINDS
    for what in ((*ATTENTIONS, GENERATE) if kind == "vanilla" else ATTENTIONS)
]


def attention(study: Study, cell: Cell) -> str:
    """``grouped-query`` where heads share keys and values, be it all of them (multi-query), and else nothing."""
    if cell.family == "pretrained":
        return ""
    config = model_config(study, cell, vocabulary=1)
    return GROUPED if any(stack.kv_heads < stack.heads for stack in config.decoders) else ""


def kind(cell: Cell) -> str:
    """``vanilla``, ``block``, ``uptrained`` or ``pretrained`` (elsewhere, so on other text and compute)."""
    return "uptrained" if cell.source else cell.family


def family(cell: Cell, shared: str) -> str:
    """The family's label, such as ``vanilla, grouped-query``."""
    return f"{kind(cell)}, {shared}" if shared else kind(cell)


def slug(label: str) -> str:
    """A label as a name that MLflow and file systems take."""
    return re.sub(r"[, ]+", "_", label.replace("=", ""))


def named(family: str) -> str:
    """A family in a sentence, such as ``vanilla transformers with grouped-query attention``."""
    kind, _, what = family.partition(", ")
    name = f"{kind} block transformers" if kind == "uptrained" else f"{kind} transformers"
    if what == GENERATE:
        return f"{name} run by transformers' generate"
    return f"{name} with {what} attention" if what else name
