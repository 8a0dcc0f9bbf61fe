"""Alignment runs as candidates: one align recipe for each point of a grid and each seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mergetool.activations.recipe import CalibrationEntry
from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.merging import takes_seed
from mergetool.align.stay import Rows
from mergetool.errors import RecipeError
from mergetool.methods import TRAININGS
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.content import with_rows_by_content
from mergetool.study.candidates.entry import Entry
from mergetool.study.candidates.grid import grid_points, label_of
from mergetool.study.candidates.models import StudyModels
from mergetool.study.candidates.ranges import Range, Searched, space_of
from mergetool.study.candidates.run_checkpoint import CheckpointSteps, RunCheckpoint, check_steps, steps_of
from mergetool.study.candidates.weights import CheckpointWeights
from mergetool.study.candidates.workspace import Workspace

START = "START"
"""What a recipe calls the candidate that its training starts from."""


class AlignGrid(BaseModel):
    """Alignment runs. A list is a grid; lists multiply; several seeds of one point are one group, mean and spread.

    seed goes to both the trainer (data order) and the merging (masks). algorithm, beta and training override
    align_defaults. `every: total` merges once, at the last step. Every other key goes to the align recipe's `merging`
    (density, alpha, alpha_total, every, rescale, ...), which validates it.
    calibration: of methods that project; the study's own where it is left out.
    start: the candidate that training starts from, and that is the reference of its loss, in place of models.sft.
    rows: of the methods that need rows whose outputs should stay; one entry, no grid.
    checkpoints: models along the run that become candidates of their own: shares of it, steps, or {every: N}.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    method: str
    seed: int | list[int] = 0
    algorithm: str | None = None
    beta: Searched | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    calibration: CalibrationEntry | None = None
    rows: Rows | None = None
    start: str | None = None
    checkpoints: CheckpointSteps | None = None

    @field_validator("checkpoints")
    @classmethod
    def _steps_of_a_run(cls, value: CheckpointSteps | None) -> CheckpointSteps | None:
        check_steps(value)
        return value


@dataclass(frozen=True)
class AlignCandidate(Candidate):
    """A training with `mergetool align`; its checkpoint is kept in OUT/candidates.

    Attributes:
        checkpoints: steps, or shares of the run, at which it leaves its weights behind as candidates of their own.
    """

    checkpoints: tuple[int | float, ...] = ()

    kind = "align"
    schema = AlignGrid
    searchable = True
    is_training = True
    counted = "trainings"
    command: ClassVar[str] = "align"
    doing = "training"

    @classmethod
    def trainings(
        cls, study: StudyModels, entry: Entry, grid: AlignGrid, named: Sequence[str] | None = None
    ) -> list[AlignCandidate]:
        """One align recipe per point; the family's name alone where nothing but the seed varies."""
        if not study.models.base:
            raise RecipeError(
                f"candidates: '{entry.name}' is an align candidate and the study has no base model", "add models.base"
            )
        defaults = study.align_defaults
        settings = dict(grid.model_extra or {})
        if grid.beta is not None:
            settings["beta"] = grid.beta
        points, varying = grid_points(settings)
        varying = named or varying
        seeds = grid.seed if isinstance(grid.seed, list) else [grid.seed]
        training = {**defaults.training, **grid.training}
        trained_by = TRAININGS.get(grid.method)
        projects = grid.calibration is not None or (trained_by is not None and trained_by.online.calibrated)
        calibration = study.calibration_for(grid.calibration) if projects else None
        checkpoints = steps_of(grid.checkpoints, training.get("max_steps", -1), entry.name)
        found = []
        for point, seed in itertools.product(points, seeds):
            shown = {key: point[key] for key in varying}
            group = " ".join(filter(None, [entry.name, label_of(shown)]))
            options = {key: value for key, value in point.items() if key != "beta"}
            beta = point.get("beta", defaults.beta)
            algorithm = grid.algorithm or defaults.algorithm
            if grid.rows is not None:
                places = [str(study.source(name)) for name in grid.rows.names]
                options["rows"] = {**grid.rows.model_dump(exclude_none=True), "data": places}
            row = ALGORITHMS.get(algorithm)  # an unknown one is for the align recipe to refuse
            if row is not None and (row.scores or row.taught):
                what = "trains a reward model" if row.scores else "starts from a policy of its own"
                raise RecipeError(
                    f"candidate '{entry.name}': algorithm {algorithm} {what}, and candidates start from the SFT model",
                    "train it with `mergetool align`",
                )
            rewards = [defaults.reward] if isinstance(defaults.reward, str) else defaults.reward or []
            align = {
                "base_model": "BASE",
                "sft_model": "SFT" if grid.start is None else START,
                "algorithm": algorithm,
                **({} if beta is None else {"beta": beta}),
                **({"reward": [study.reward_source(text) for text in rewards]} if row and row.rewarded else {}),
                "data": {
                    key: str(study.source(value)) if key in ("train", "eval") and isinstance(value, str) else value
                    for key, value in defaults.data.items()
                },
                "merging": {"method": grid.method, **options} | ({"seed": seed} if takes_seed(grid.method) else {}),
                **({} if calibration is None else {"calibration": calibration}),
                "training": {**training, "seed": seed},
                **{key: value for key in ("dtype", "out_dtype") if (value := getattr(defaults, key)) is not None},
            }
            name = f"{group} seed={seed}" if len(seeds) > 1 else group
            found.append(cls(name, group, entry.family_name, entry.name, shown, seed, align, checkpoints=checkpoints))
        return found

    @classmethod
    def expand(
        cls,
        study: StudyModels,
        entry: Entry,
        grid: AlignGrid,
        trainings: Sequence[Candidate],
        named: Sequence[str] | None = None,
    ) -> list[RunCheckpoint]:
        """The checkpoints along each of its runs; a run is trained once, whatever is asked of it."""
        if grid.checkpoints is None:
            return []
        own = [one for one in trainings if isinstance(one, AlignCandidate) and one.entry == entry.name]
        return [one for run in own for one in RunCheckpoint.of(run, f"{entry.family_name} along training", run.checkpoints)]

    @classmethod
    def depends_on(cls, grid: AlignGrid) -> list[str]:
        return [] if grid.start is None else [grid.start]

    @classmethod
    def search_space(cls, grid: AlignGrid) -> dict[str, Range | list[Any]]:
        if grid.checkpoints is not None:
            raise ValueError("it has both search and checkpoints; make two candidates of it")
        return space_of(grid)

    @classmethod
    def canonical(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        from mergetool.align import align_recipe

        return align_recipe(recipe).as_written()

    def _identity_parts(self, workspace: Workspace) -> list[Any]:
        return [self.kind, with_rows_by_content(self._recipe_by_content(workspace), workspace.identify)]

    def check(self, models: dict[str, str]) -> None:
        from mergetool.align import align_recipe
        from mergetool.align.check import check_align

        check_align(align_recipe(self.with_models(models) or {}, Path.cwd(), "its align recipe"))

    def checkpoint(self, workspace: Workspace) -> Path | None:
        from mergetool.align.snapshots import place_of

        directory = workspace.directory(self.name)
        if not workspace.holds(self.name, self.identities(workspace)):
            return None
        return directory if all(place_of(directory, step) for step in self.checkpoints) else None

    def make(self, workspace: Workspace) -> CheckpointWeights:
        """Trains, unless an earlier run of the same recipe has."""
        from mergetool.align import align_recipe
        from mergetool.align.run import align

        if not workspace.fresh and (there := self.checkpoint(workspace)):
            return CheckpointWeights(there)
        recipe = align_recipe(self.resolved_recipe(workspace) or {}, workspace.out, self.name)
        out, same = workspace.claim(self.name, self.identities(workspace), self.command, recipe.as_written())
        align(recipe, out, fresh=workspace.fresh or not same, along=self.checkpoints)
        return CheckpointWeights(out)
