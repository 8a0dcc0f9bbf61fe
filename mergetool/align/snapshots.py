"""Snapshots of a run: the weights of chosen steps, written beside the result while it is trained.

A trainer's own checkpoint holds the optimizer's state too and is four times as large; these hold what one would
publish, in the type that the result will have. One write each is all that they cost.
"""

from __future__ import annotations

import copy
import functools
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mergetool import reading
from mergetool.align.recipe import AlignRecipe
from mergetool.align.result import write_model
from mergetool.align.workspace import Workspace
from mergetool.checkpoint.along import FOLDER  # in the result, and in the working directory until there is one
from mergetool.checkpoint.manifest import Manifest
from mergetool.errors import CheckpointError, RecipeError
from mergetool.files import sync_tree
from mergetool.version import __version__


def step_of(place: float, steps: int) -> int:
    """The step that a place of a run of `steps` steps is: a share of it below 1, else the step itself."""
    return int(place) if place >= 1 else max(1, min(steps - 1, round(place * steps)))


def place_of(result: Path, place: float) -> Path | None:
    """The model at a place of a finished run; None where it was not asked for.

    Args:
        result: the run's own directory.
        place: a share below 1, or a step.
    """
    try:
        found = Manifest.read(result)
    except CheckpointError:
        return None
    steps = found.trained or found.steps
    if steps is None:
        return None
    kept = result / FOLDER / f"step-{step_of(place, steps)}"
    return kept if (kept / "config.json").exists() else None


class Snapshots:
    """The snapshots of one run.

    Args:
        places: shares of the run below 1, or steps.
        work: where the run works.
        recipe: of the run. sft: the directory of theta_s.
    """

    def __init__(self, places: Sequence[float], work: Workspace, recipe: AlignRecipe, sft: Path) -> None:
        self._places, self._folder, self._result = tuple(places), work.directory / FOLDER, work.result / FOLDER
        self._recipe, self._sft = recipe, sft

    def steps(self, total: int) -> list[int]:
        """The steps that are kept of a run of `total` steps.

        Raises:
            RecipeError: the run has no such step before its last.
        """
        found = sorted({step_of(place, total) for place in self._places})
        if found and (late := found[-1]) >= total:
            raise RecipeError(f"checkpoints: step {late}, and the run has {total} steps", "give earlier steps, or shares")
        return found

    def lacks(self, checkpoint: Path) -> bool:
        """True where a run resumed from this checkpoint would never come by a step that is missing."""
        if not self._places:
            return False
        state = reading.parsed_file(checkpoint / "trainer_state.json")
        wanted = [step for step in self.steps(state["max_steps"]) if step <= state["global_step"]]
        return any(not (self._folder / f"step-{step}").exists() for step in wanted)

    def write(self, trainer: Any, step: int) -> None:
        """Writes the weights as they are now, of an average the average; all ranks must call it."""
        with nullcontext() if trainer.average is None else trainer.average.in_place(trainer.model):
            self._write(trainer, step)

    def _write(self, trainer: Any, step: int) -> None:
        state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
        if not trainer.is_world_process_zero():
            return
        model = trainer.accelerator.unwrap_model(trainer.model)
        if hasattr(model, "merge_and_unload"):
            model = copy.deepcopy(model).merge_and_unload()  # what is published of such a run is not what is trained
        part, place = self._folder / f".step-{step}", self._folder / f"step-{step}"
        for old in (part, place):
            shutil.rmtree(old, ignore_errors=True)
        # its own copy of the weights: the model that is trained must keep its type
        weights = dict(model.state_dict()) if state is None else state
        dtype = write_model(model, weights, self._recipe, self._sft, part, trainer.processing_class)
        recipe, steps = self._recipe.as_written(), trainer.state.max_steps
        Manifest("align", recipe, step=step, steps=steps, dtype=dtype, mergetool=__version__).write(part)
        sync_tree(part)
        os.rename(part, place)

    def publish(self) -> list[int]:
        """Puts them into the result under construction; returns their steps."""
        if not self._places:
            return []
        for cut_short in self._folder.glob(".step-*"):
            shutil.rmtree(cut_short)
        os.rename(self._folder, self._result)
        return sorted(int(path.name.removeprefix("step-")) for path in self._result.glob("step-*"))

    def watch(self, trainer: Any) -> None:
        """Lets the trainer call `write` at the steps that are kept."""
        if self._places:
            trainer.add_callback(_watcher()(self, trainer))


@functools.cache
def _watcher() -> type:
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        """Writes each model when its step has been taken."""

        def __init__(self, snapshots: Snapshots, trainer: Any) -> None:
            self.snapshots, self.trainer = snapshots, trainer
            self.steps: list[int] = []

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.steps = self.snapshots.steps(state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in self.steps:
                self.snapshots.write(self.trainer, state.global_step)

    return Watcher
