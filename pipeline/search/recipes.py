"""What a tuning found, as the part of params.yaml that it is: recipes, to include or to paste."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pipeline.results.search import ModelTuning, Prediction, TuneResult
from pipeline.study.recipe_space import STD, Point

HEAD = """\
# Recipes that `python -m pipeline tune` found, by trials of {tokens:,} tokens, seed {seed}; loss: validation, nats per
# token. A study takes them with `include: tune/recipes.yaml`, or pasted into its params.yaml.
"""


Hash = Callable[[str, Point], str]


def recipes_yaml(result: TuneResult, hash_of: Hash) -> str:
    """The recipe of every model whose trials are finished, those of its group, and the predicted ones.

    ``hash_of`` tells of a model and its point what the recipe was found for.
    """
    parts = [part for model in result.models for part in _of_model(result, model, hash_of)]
    parts += [_predicted(result, prediction, hash_of) for prediction in result.predicted]
    unfinished = [model for model in result.models if not model.finished]
    waiting = [f"# {model.model}: {len(model.trials)} of {model.wanted} trials finished\n" for model in unfinished]
    body = ["recipes:\n", *parts] if parts else ["recipes: {}\n"]
    return "".join([HEAD.format(tokens=result.tokens, seed=result.seed), *waiting, *body])


def _of_model(result: TuneResult, model: ModelTuning, hash_of: Hash) -> Iterator[str]:
    best = model.optimum
    if not model.finished or best is None or best.loss is None:
        return
    facts: dict[str, Any] = {
        "of": [model.model],
        "tokens": result.tokens,
        "trials": len(model.trials),
        "at_edge": model.at_edge,
    }
    costs = {name: _rounded(getattr(model, name)) for name in ("halved", "doubled")}
    told = f"loss {best.loss:.4f} in trial {best.number}{_edge(model.at_edge)}"
    own = {"keys": hash_of(model.model, best.point)}
    yield _entry(model.model, best.point, {"status": "tuned"} | facts | costs | own, told)
    for name in model.shared:
        keys = {"keys": hash_of(name, best.point)}
        yield _entry(name, best.point, {"status": "shared"} | facts | keys, f"found for {model.model}")


def _predicted(result: TuneResult, prediction: Prediction, hash_of: Hash) -> str:
    trials = next(model.wanted for model in result.models if model.model == prediction.of[0])
    facts = {
        "status": "predicted",
        "of": prediction.of,
        "tokens": result.tokens,
        "trials": trials,
        "at_edge": prediction.at_edge,
        "intervals": prediction.intervals,
        "keys": hash_of(prediction.model, prediction.point),
    }
    sure = "95 % intervals below" if prediction.intervals else "two sizes: no interval"
    told = f"predicted by power laws of the size, {sure}{_edge(prediction.at_edge)}"
    return _entry(prediction.model, prediction.point, facts, told)


def _entry(model: str, point: Point, tuning: dict[str, Any], told: str) -> str:
    import yaml

    keys: dict[str, Any] = {key: value for key, value in point.items() if key != STD}
    keys |= {"initialization": {"std": point[STD]}} if STD in point else {}
    tuning = {key: value for key, value in tuning.items() if value not in ([], {}, None)}
    text = yaml.safe_dump({model: keys | {"tuning": tuning}}, sort_keys=False, default_flow_style=None)
    return f"  # {told}\n" + "".join(f"  {line}\n" for line in text.splitlines())


def _edge(keys: list[str]) -> str:
    return f"; at the edge of what was tried: {', '.join(keys)}" if keys else ""


def _rounded(nats: float | None) -> float | None:
    return None if nats is None else round(nats, 4)
