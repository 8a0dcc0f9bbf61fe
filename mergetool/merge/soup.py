"""`run:` among the models of a merge recipe: the models along a training run, weighed by a decay curve.

    models:
      - {run: out/dpo, curve: ema, coefficient: 0.2}

stands for one entry a model, each with its share of the entry's own weight, and is written so into the result's account.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mergetool.checkpoint.along import models_along
from mergetool.config.sources import resolve_source
from mergetool.config.strict_yaml import validate
from mergetool.errors import RecipeError
from mergetool.merge.curves import shares


class Soup(BaseModel):
    """The models along a run.

    Attributes:
        run: a result of `mergetool align --along`, or a trainer's directory of checkpoint-N.
        curve, coefficient: see `curves.shares`.
        steps: those of them that count; all where they are left out.
        relative_to, parameters: of every one of the models, as of a model; `weight` is that of all together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    run: str = Field(min_length=1)
    curve: str = "sma"
    coefficient: float | None = None
    steps: list[int] | None = None
    relative_to: Any = None
    parameters: dict[str, Any] = Field(default_factory=dict)


def with_soups(content: Mapping[str, Any], directory: str | Path, source: str | Path) -> dict[str, Any]:
    """A recipe whose `run` entries are replaced by the models that they stand for.

    Args:
        content: as YAML gives it. directory: where relative paths start. source: opens an error message.

    Raises:
        RecipeError: a key of such an entry is wrong, or a step that the run does not have.
        CheckpointError: the run has no models along it.
    """
    models = content.get("models")
    if not isinstance(models, list) or not any(_is_soup(one) for one in models):
        return dict(content)
    found: list[Any] = []
    for at, one in enumerate(models):
        if _is_soup(one):
            found += _entries(validate(Soup, dict(one), f"{source}: models[{at}]"), Path(directory))
        else:
            found.append(one)
    return {**content, "models": found}


def _is_soup(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "run" in entry


def _entries(soup: Soup, directory: Path) -> list[dict[str, Any]]:
    place = resolve_source(soup.run, directory)
    along = models_along(Path(place))
    steps = sorted(along if soup.steps is None else soup.steps)
    if missing := [step for step in steps if step not in along]:
        raise RecipeError(f"{place}: no model of step {missing[0]}", f"there are {', '.join(map(str, along))}")
    weight = soup.parameters.get("weight", 1.0)
    if isinstance(weight, (list, dict, str)):
        raise RecipeError(f"weight {weight!r} of a run: its models share one number", "write one number")
    common = {} if soup.relative_to is None else {"relative_to": soup.relative_to}
    return [
        {"model": str(along[step]), **common, "parameters": {**soup.parameters, "weight": weight * share}}
        for step, share in zip(steps, shares(soup.curve, len(steps), soup.coefficient), strict=True)
    ]
