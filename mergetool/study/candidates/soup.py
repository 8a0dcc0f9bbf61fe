"""Soups of what a study makes itself: the models along each run of a candidate, or the ends of its runs.

Along a run, the models are weighed by a decay curve (SMA, EMA, WSM). Of several runs, their task vectors from where they
started are merged, and a share of the result is added to the start; so a round of WARP is a soup of two runs by `nuslerp`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mergetool.errors import RecipeError
from mergetool.merge.curves import EMA, shares
from mergetool.methods import METHODS
from mergetool.study.candidates.align import START, AlignCandidate
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.entry import Entry
from mergetool.study.candidates.grid import grid_points, label_of
from mergetool.study.candidates.merge import MergeCandidate
from mergetool.study.candidates.models import Strict, StudyModels
from mergetool.study.candidates.offline_recipe import of_models
from mergetool.study.candidates.ranges import Grid
from mergetool.study.candidates.workspace import Workspace

_SCALES = ("scaling", "lambda")
"""What a merged task vector is multiplied by, in the words of the methods that take one."""


class SoupGrid(Strict):
    """A soup of the candidates of one entry. A list is a grid.

    of: the entry.
    curve, coefficient: of an align entry with `checkpoints`: one soup for each run, of the models along it and its end; see
        `mergetool.merge.curves`.
    merge_method: of one soup of all its candidates: `linear` for their mean, or what merges task vectors.
    weight: share of the way from the start to the soup; above 1 beyond it.
    since: what the start is: where the runs started, or the SFT model.
    parameters: of the merge recipe.
    """

    of: str
    curve: str | list[str] | None = None
    coefficient: Grid | None = None
    merge_method: str | None = None
    weight: Grid = 1
    since: Literal["start", "sft"] = "start"
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _along_or_of_several(self) -> SoupGrid:
        if self.curve is None:
            if self.coefficient is not None:
                raise ValueError("a coefficient is that of a curve; add `curve: ema`")
            return self
        if self.merge_method is not None or self.parameters:
            raise ValueError("a curve weighs the models of one run; leave merge_method and parameters out")
        return self

    def points(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The points of the grid, and what varies. A coefficient belongs to `ema` alone."""
        curves = [self.curve] if isinstance(self.curve, str) else self.curve or [None]
        found: list[dict[str, Any]] = []
        for curve in curves:
            lists: dict[str, Any] = {} if curve is None else {"curve": curve}
            if curve == EMA:
                lists["coefficient"] = self.coefficient
                for one in self.coefficient if isinstance(self.coefficient, list) else [self.coefficient]:
                    shares(EMA, 2, one)
            elif curve is not None:
                shares(curve, 2)
            found += grid_points({**lists, "weight": self.weight})[0]
        keys = ("curve", "coefficient", "weight")
        seen = {key: {point[key] for point in found if key in point} for key in keys}
        return found, [key for key in keys if len(seen[key]) > 1]


class SoupCandidate(MergeCandidate):
    """A soup of candidates of this study; made once these are."""

    kind = "soup"
    schema = SoupGrid
    searchable = False
    needs_rlhf = False

    @classmethod
    def depends_on(cls, grid: SoupGrid) -> list[str]:
        return [grid.of]

    @classmethod
    def expand(
        cls,
        study: StudyModels,
        entry: Entry,
        grid: SoupGrid,
        trainings: Sequence[Candidate],
        named: Sequence[str] | None = None,
    ) -> list[Candidate]:
        """One candidate a point; along runs, for each run of it."""
        of = [one for one in trainings if one.entry == grid.of]
        points, varying = grid.points()
        found: list[Candidate] = []
        for point in points:
            shown = {key: point[key] for key in varying if key in point}
            group = " ".join(filter(None, [entry.name, label_of(shown)]))
            if grid.curve is None:
                recipe, made_of = _of_several(grid, of, point["weight"])
                found.append(cls(group, group, entry.family_name, entry.name, shown, None, recipe, made_of=made_of))
                continue
            for run in of:
                if not isinstance(run, AlignCandidate) or not run.checkpoints:
                    raise RecipeError(
                        f"candidates: '{entry.name}': '{grid.of}' keeps no models along its run",
                        f"give '{grid.of}' checkpoints: {{every: N}}, or leave `curve` out",
                    )
                name = " ".join(filter(None, [group, label_of(run.settings)]))
                whole = f"{name} seed={run.seed}" if run.name != run.group else name
                recipe, made_of = _along(grid, run, point)
                settings = {**run.settings, **shown}
                found.append(cls(whole, name, entry.family_name, entry.name, settings, run.seed, recipe, run, made_of=made_of))
        return found

    @classmethod
    def canonical(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        return recipe

    def merged(self, workspace: Workspace) -> dict[str, Any]:
        """The recipe with the models that lie along its run, at the places that this study asks for."""
        from mergetool.align.snapshots import place_of
        from mergetool.checkpoint.along import models_along
        from mergetool.merge.soup import with_soups

        recipe = self.resolved_recipe(workspace) or {}
        if isinstance(self.run, AlignCandidate):
            directory = workspace.directory(self.run.name)
            asked = {place_of(directory, step) for step in self.run.checkpoints} | {directory}
            steps = [step for step, path in models_along(directory).items() if path in asked]
            recipe["models"] = [{**one, "steps": steps} if "run" in one else one for one in recipe["models"]]
        return with_soups(recipe, "/", self.name)

    def check(self, models: dict[str, str]) -> None:
        """As of a merge, with the SFT model in the place of those that are still to be made."""
        from mergetool.config.strict_yaml import validate
        from mergetool.merge import MergeRecipe, plan_merge

        sft, recipe = models["SFT"], self.recipe or {}
        if not Path(sft).is_dir():
            return  # what stands for several models has to have several names
        others = {name: os.path.join(sft, *["."] * at) for at, name in enumerate(self.sources, 1)}
        entries = [{"model": one.get("model") or one["run"], "parameters": one["parameters"]} for one in recipe["models"]]
        stand_in = replace(self, recipe={**recipe, "models": entries})
        plan_merge(validate(MergeRecipe, stand_in.with_models({**models, **others}), "its merge recipe"))

    def _identity_parts(self, workspace: Workspace) -> list[Any]:
        return [self.kind, self._recipe_by_content(workspace), workspace.identities["SFT"]]


def _along(grid: SoupGrid, run: AlignCandidate, point: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Candidate]]:
    """(1 − w) · start + w · Σ cⱼ θⱼ, along one run, whose result is called RLHF."""
    start, made_of = _start(grid, [run])
    curve = {key: point[key] for key in ("curve", "coefficient") if key in point}
    models: list[dict[str, Any]] = [{"run": "RLHF", **curve, "parameters": {"weight": point["weight"]}}]
    if point["weight"] != 1:
        models.append({"model": start, "parameters": {"weight": 1 - point["weight"]}})
    return {"merge_method": "linear", "models": models}, made_of if point["weight"] != 1 else {}


def _of_several(grid: SoupGrid, of: Sequence[Candidate], weight: float) -> tuple[dict[str, Any], dict[str, Candidate]]:
    """start + w · the merge of all task vectors from it, each at an equal weight.

    Raises:
        RecipeError: there is only a whole way from the start with this method.
    """
    start, made_of = _start(grid, of)
    called = {f"RUN {at}": one for at, one in enumerate(of, 1)}
    method = grid.merge_method or "linear"
    row = METHODS.get(method)  # an unknown one is for the merge recipe to refuse
    scales = next((word for word in _SCALES if row is not None and word in row.parameters), None)
    models, parameters = [{"model": name, "parameters": {"weight": 1 / len(of)}} for name in called], dict(grid.parameters)
    recipe: dict[str, Any] = {"merge_method": method, "models": models, "parameters": parameters}
    if scales is not None or not of_models(method):
        recipe["base_model"] = start
    if weight == 1 and not recipe.get("base_model"):
        made_of = {}
    elif weight != 1 and scales is not None:
        parameters[scales] = weight
    elif weight != 1 and row is not None and row.of_models and "normalize" in row.parameters:
        models[:] = [{**one, "parameters": {"weight": weight / len(of)}} for one in models]
        models.append({"model": start, "parameters": {"weight": 1 - weight}})
    elif weight != 1:
        raise RecipeError(f"weight {weight:g}: {method} goes the whole way", "leave weight out, or take linear or nuslerp")
    return {key: value for key, value in recipe.items() if value != {}}, {**called, **made_of}


def _start(grid: SoupGrid, of: Sequence[Candidate]) -> tuple[str, dict[str, Candidate]]:
    """What the soup starts from, and the candidate that it is where it is none of the study's models.

    Raises:
        RecipeError: they started from different models.
    """
    starts = {one.made_of[START].name: one.made_of[START] for one in of if START in one.made_of}
    if grid.since == "sft" or not starts:
        return "SFT", {}
    if len(starts) > 1 or any(START not in one.made_of for one in of):
        raise RecipeError(f"'{grid.of}' started from different models", "write `since: sft`")
    ((_, start),) = starts.items()
    return START, {START: start}
