"""Offline merges of SFT and RLHF as candidates: one merge recipe for each point of a grid."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from mergetool.activations.recipe import CalibrationEntry
from mergetool.errors import RecipeError
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.content import models_by_content, with_calibration_by_content
from mergetool.study.candidates.entry import Entry
from mergetool.study.candidates.grid import grid_points, label_of
from mergetool.study.candidates.models import Strict, StudyModels
from mergetool.study.candidates.offline_recipe import (
    by_part,
    calibrates_each,
    combinations,
    merge_recipe,
    of_models,
    projects,
    rest_of,
)
from mergetool.study.candidates.ranges import Range, SearchedShares, Slope
from mergetool.study.candidates.rlhf import rlhf_runs
from mergetool.study.candidates.weights import CheckpointWeights, MergedWeights
from mergetool.study.candidates.workspace import Workspace


class CalibrationOfEach(Strict):
    """A calibration for each of the two models that are merged."""

    sft: CalibrationEntry
    rlhf: CalibrationEntry


def _form(value: Any) -> str:
    """Which of the two forms of a calibration a recipe has."""
    each = isinstance(value, CalibrationOfEach) or (isinstance(value, dict) and value.keys() & {"sft", "rlhf"})
    return "each" if each else "one"


_Calibrations = Annotated[
    Annotated[CalibrationEntry, Tag("one")] | Annotated[CalibrationOfEach, Tag("each")],
    Discriminator(_form),
]


class MergeGrid(BaseModel):
    """Offline merges of SFT and RLHF. A list is a grid; lists multiply.

    weight w: share of RLHF, 1 - w of SFT. alpha: share of SFT, 1 - alpha of RLHF; give one of the two.
    {first: 0.3, last: 1} gives each layer its share on a line (LiNeS); a list of such lines is a grid.
    A list within the list gives each part of the model a share of its own: `weight: [[0.2, 0.5, 0.8]]` splits the layers
    into three consecutive parts, the embeddings with the first and the final norm and the head with the last.
    parts: `parts: 3` makes every combination of the given shares over three parts.
    relative_to: what RLHF is a delta from, `base` or `sft`; see `offline_recipe`. With `sft` both may be
    given, since the two deltas are then of two different things: alpha: 0 leaves SFT + w * F(RLHF - SFT). A method that
    projects has `sft` and alpha 0 by itself: its calibration is of SFT. A weight above 1 goes beyond RLHF
    there (ExPO: task_arithmetic with alpha 0).
    calibration: of methods that project or that read one of each model; the study's own where it is left out. Of the latter
    `calibration: {sft: …, rlhf: …}` gives each model its own, and one without these words is for both.
    Every other key goes to the merge recipe's `parameters` (normalize, rescale, scope, lambda, ...).
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    merge_method: str
    weight: SearchedShares | None = None
    alpha: SearchedShares | None = None
    parts: int | None = Field(default=None, ge=2)
    relative_to: Literal["base", "sft"] = "base"
    calibration: _Calibrations | None = None
    seed: int | list[int] | None = None
    dtype: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_sft(cls, value: Any) -> Any:
        if isinstance(value, dict) and projects(str(value.get("merge_method"))):
            return {"relative_to": "sft", "weight": 1, "alpha": 0, **value}
        return value

    @model_validator(mode="after")
    def _one_weight(self) -> MergeGrid:
        both_may_be = self.relative_to == "sft" and self.weight is not None
        if (self.weight is None) == (self.alpha is None) and not both_may_be:
            raise ValueError("give either weight (share of RLHF) or alpha (share of SFT); weight: [0.25, 0.5, 0.75]")
        for name in ("weight", "alpha"):
            value = getattr(self, name)
            ends = [value.low, value.high] if isinstance(value, Range) else [value] if value is not None else []
            for one in value if isinstance(value, list) else ends:
                some = [one.first, one.last] if isinstance(one, Slope) else one if isinstance(one, list) else [one]
                beyond = name == "weight" and not isinstance(one, list) and self.relative_to == "sft"
                if not some or any(not 0 <= share <= (math.inf if beyond else 1) for share in some):
                    shown = one.label if isinstance(one, Slope) else one
                    raise ValueError(f"{name} {shown} is a share; give numbers from 0 to 1")
                if isinstance(one, Slope) and self.parts:
                    raise ValueError(f"{name} {one.label}: a share for each layer does not go with `parts`")
                if isinstance(one, list) and (self.parts or (both_may_be and self.alpha is not None)):
                    raise ValueError(f"{name} {one}: shares by part go neither with `parts` nor with a second share")
        if self.parts and any(isinstance(getattr(self, name), Range) for name in ("weight", "alpha")):
            raise ValueError("parts multiplies a list of shares; search over shares of whole models, or learn them: ama")
        return self


class MergeCandidate(Candidate):
    """A merge that is made in memory, tensor by tensor, and written only where it is to be saved."""

    kind = "merge"
    schema = MergeGrid
    searchable = True
    needs_rlhf = True
    counted = "merges"
    command: ClassVar[str] = "merge"

    @classmethod
    def expand(
        cls,
        study: StudyModels,
        entry: Entry,
        grid: MergeGrid,
        trainings: Sequence[Candidate],
        named: Sequence[str] | None = None,
    ) -> list[Candidate]:
        """One merge recipe per point and, where this study makes the RLHF model, per seed of that."""
        add_calibration = _calibrated(study, entry.name, grid)
        share = "weight" if grid.weight is not None else "alpha"
        needs_base = not of_models(grid.merge_method) and not (grid.relative_to == "sft" and grid.alpha == 0)
        if needs_base and not study.models.base:
            raise RecipeError(
                f"candidates: '{entry.name}' merges deltas from a base model and the study has none", "add models.base"
            )
        if of_models(grid.merge_method) and grid.relative_to == "sft":
            raise RecipeError(
                f"candidates: '{entry.name}': relative_to has no meaning for {grid.merge_method}, "
                "which merges models, not deltas",
                "remove it",
            )
        shares = getattr(grid, share)
        lists = {share: combinations(shares, grid.parts) if grid.parts else shares, **(grid.model_extra or {})}
        if share == "weight" and grid.alpha is not None:
            lists["alpha"] = grid.alpha
        points, varying = grid_points(lists)
        varying = named or varying
        runs = rlhf_runs(study, trainings)
        seeds = grid.seed if isinstance(grid.seed, list) else [grid.seed]
        found: list[Candidate] = []
        for point, (at, seed), run in itertools.product(points, enumerate(seeds), runs):
            shown = dict(_shown(key, point[key]) for key in varying or [share])
            group = f"{entry.name} {label_of(shown)}"
            rest = {key: value for key, value in point.items() if key != share}
            weight = by_part(study, point[share]) if isinstance(point[share], list | Slope) else point[share]
            weight = weight if share == "weight" else rest_of(weight)
            # masks vary with the RLHF run unless told otherwise, so that the spread over seeds has both in it
            mask = seed if seed is not None else run.seed if run else 0
            whole = merge_recipe(grid.merge_method, weight, grid.relative_to, dtype=grid.dtype, seed=mask or None, **rest)
            add_calibration(whole)
            words = [group]
            if len(runs) > 1 and run is not None:
                words.append(f"seed={run.seed}")
            if len(seeds) > 1:
                words.append(f"mask={seed}")
            number = None if run is None and len(seeds) == 1 else at if run is None else run.seed
            found.append(cls(" ".join(words), group, entry.family_name, entry.name, shown, number, whole, run))
        return found

    @classmethod
    def canonical(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        from mergetool.config.strict_yaml import validate
        from mergetool.merge import MergeRecipe

        return {**validate(MergeRecipe, recipe, "recipe").to_dict(), "name": None}

    def _identity_parts(self, workspace: Workspace) -> list[Any]:
        recipe = with_calibration_by_content(self._recipe_by_content(workspace))
        return [self.kind, recipe, models_by_content(recipe, workspace.identify)]

    def check(self, models: dict[str, str]) -> None:
        from mergetool.config.strict_yaml import validate
        from mergetool.merge import MergeRecipe, plan_merge

        if models.get("RLHF") == models.get("SFT"):  # one that is still to be trained: another model than SFT, of its shape
            sft = models["SFT"]
            models = {**models, "RLHF": os.path.join(sft, ".") if Path(sft).is_dir() else f"{sft.partition('@')[0]}@main"}
        plan_merge(validate(MergeRecipe, self.with_models(models), "its merge recipe"))

    def checkpoint(self, workspace: Workspace) -> Path | None:
        there = workspace.holds(self.name, self.identities(workspace))
        return workspace.directory(self.name) if there else None

    def make(self, workspace: Workspace) -> CheckpointWeights | MergedWeights:
        """The merge, tensor by tensor; written where others are made of it."""
        if not self.kept:
            return MergedWeights(self.merged(workspace))
        if (there := self.checkpoint(workspace)) is not None and not workspace.fresh:
            return CheckpointWeights(there)
        from mergetool.merge import merge_to_directory, plan_merge
        from mergetool.merge.recipe import merge_recipe

        plan = plan_merge(merge_recipe(self.merged(workspace), "/", self.name))
        out, _ = workspace.claim(self.name, self.identities(workspace), self.command, plan.recipe.to_dict())
        merge_to_directory(plan, out)
        return CheckpointWeights(out)

    def merged(self, workspace: Workspace) -> dict[str, Any]:
        """The merge recipe, once what it is made of is there."""
        return self.resolved_recipe(workspace) or {}


def _calibrated(study: StudyModels, entry: str, grid: MergeGrid) -> Callable[[dict[str, Any]], None]:
    """What puts the calibrations that a method reads into a merge recipe of SFT and RLHF, in place."""
    own, each, of, shared = grid.calibration, calibrates_each(grid.merge_method), dict[str, Any](), None
    if isinstance(own, CalibrationOfEach):
        if not each:
            raise RecipeError(
                f"candidates: '{entry}': {grid.merge_method} reads no calibration of each model", "give one, or leave it out"
            )
        of = {"SFT": study.calibration_for(own.sft), "RLHF": study.calibration_for(own.rlhf)}
    elif each or projects(grid.merge_method):
        shared = study.calibration_for(own)

    def add(recipe: dict[str, Any]) -> None:
        for model in recipe["models"]:
            if model["model"] in of:
                model["calibration"] = of[model["model"]]
        if shared is not None:
            recipe["calibration"] = shared

    return add


def _shown(key: str, value: Any) -> tuple[str, Any]:
    """A setting as names and pictures have it; shares by part are a word of their own, 0.2/0.5/0.8; by layer 0.3..1."""
    if isinstance(value, Slope):
        return f"{key} by layer", value.label
    return (f"{key} by part", "/".join(f"{one:g}" for one in value)) if isinstance(value, list) else (key, value)
