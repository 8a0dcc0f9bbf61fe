"""Checkpoints along a training run of the study: early stopping as a baseline, from one training.

The training leaves the weights of the steps that are asked for behind (`checkpoints:` of an align candidate).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mergetool.errors import CheckpointError, RecipeError
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.grid import label_of
from mergetool.study.candidates.weights import CheckpointWeights
from mergetool.study.candidates.workspace import Workspace

CheckpointSteps = list[int | float] | dict[Literal["every"], int]
"""Shares of a run, steps, or {every: N}."""


class RunCheckpoint(Candidate):
    """What `run` was after the step, or the share of its steps, in `settings`."""

    kind = "along"
    run_is = "its run"

    @classmethod
    def of(cls, run: Candidate, family: str, steps: Sequence[int | float]) -> list[RunCheckpoint]:
        """A candidate for each of the steps (or shares of a run whose length is not known yet), in their order."""
        found = []
        for step in steps:
            shown: dict[str, Any] = {"share" if step < 1 else "step": step}
            group = f"{run.group} {label_of(shown)}"
            name = f"{group} seed={run.seed}" if run.name != run.group else group
            settings = {**run.settings, **shown}
            found.append(cls(name, group, family, run.entry, settings, run.seed, run.recipe, run))
        return found

    @property
    def step(self) -> int | float:
        """A step, or a share of the run below 1."""
        return self.settings["step" if "step" in self.settings else "share"]

    @property
    def part_of(self) -> str:
        return self._run.group

    @property
    def remark(self) -> str:
        where = f"step {self.step}" if self.step >= 1 else f"{self.step:.0%} of its steps"
        return f"The model after {where} of this training."

    def resolved_recipe(self, workspace: Workspace) -> dict[str, Any] | None:
        return self._run.resolved_recipe(workspace)

    def _identity_parts(self, workspace: Workspace) -> list[Any]:
        return [self.kind, self._run.identity(workspace), self.step]

    def checkpoint(self, workspace: Workspace) -> Path | None:
        return self._directory(workspace) if self._run.checkpoint(workspace) else None

    def make(self, workspace: Workspace) -> CheckpointWeights:
        found = self._directory(workspace)
        if found is None:
            run = workspace.directory(self._run.name)
            raise CheckpointError(f"{run}: it holds no checkpoint at {self.step:g}", "run again with --fresh")
        return CheckpointWeights(found)

    def _directory(self, workspace: Workspace) -> Path | None:
        from mergetool.align.snapshots import place_of

        return place_of(workspace.directory(self._run.name), self.step)

    @property
    def _run(self) -> Candidate:
        assert self.run is not None
        return self.run


def steps_of(asked: CheckpointSteps | None, max_steps: int, entry: str) -> tuple[int | float, ...]:
    """The steps at which a run leaves its weights behind; shares of it where its length is not known yet.

    Args:
        asked: `checkpoints` of the recipe.
        max_steps: of the run; below 1 where it is not known.
        entry: name of the candidate, for an error.

    Raises:
        RecipeError: a step that the run does not have, or `every` where the run's length is not known.
    """
    from mergetool.align.snapshots import step_of

    if asked is None:
        return ()
    known = max_steps > 0
    if isinstance(asked, dict):
        if not known:
            raise RecipeError(
                f"candidates: '{entry}': checkpoints every {asked['every']} steps of a run whose length is not known yet",
                "set training.max_steps, or give shares of the run: checkpoints: [0.25, 0.5, 0.75]",
            )
        asked = list(range(asked["every"], max_steps, asked["every"]))
        if not asked:
            raise RecipeError(f"candidates: '{entry}': the run ends before its first checkpoint", "lower checkpoints.every")
    found: list[int | float] = []
    for one in asked:
        step = one if isinstance(one, float) and one < 1 else int(one)
        if known and step < 1:
            step = step_of(step, max_steps)
        if known and max_steps <= step:
            raise RecipeError(f"candidates: '{entry}': checkpoint at step {step} of {max_steps}", "give earlier steps")
        found.append(step)
    return tuple(dict.fromkeys(found))


def check_steps(asked: CheckpointSteps | None) -> None:
    """Whether a recipe's `checkpoints` makes sense, whatever the run.

    Raises:
        ValueError: it does not.
    """
    if isinstance(asked, dict):
        if asked.get("every", 0) < 1:
            raise ValueError("give {every: N} with N steps")
    elif asked is not None:
        shares = [isinstance(one, float) and one < 1 for one in asked]
        if not asked or any(one <= 0 for one in asked) or (any(shares) and not all(shares)):
            raise ValueError("give shares of the run between 0 and 1, [0.25, 0.5, 0.75], or whole steps, [100, 200]")
        if not all(shares) and not all(float(one).is_integer() for one in asked):
            raise ValueError("a step is a whole number; a share of the run lies between 0 and 1")
