"""Merges whose ratios are learned block by block, see `mergetool ama`, as candidates."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.content import with_rows_by_content
from mergetool.study.candidates.entry import Entry
from mergetool.study.candidates.grid import grid_points, label_of
from mergetool.study.candidates.merge import MergeCandidate
from mergetool.study.candidates.models import StudyModels
from mergetool.study.candidates.ranges import Grid
from mergetool.study.candidates.rlhf import rlhf_runs
from mergetool.study.candidates.weights import MergedWeights
from mergetool.study.candidates.workspace import Workspace

if TYPE_CHECKING:
    from mergetool.ama import AmaRecipe


class AmaGrid(BaseModel):
    """Ratios learned for each block, see `mergetool ama`. A list of `alpha` (mean share of SFT) or `blocks` is a grid.

    data: of the answers of high reward; default: the rows that align candidates train on.
    Every other key (embeddings, epsilon, penalty, training, reward, ...) goes to the AMA recipe, which validates it.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    alpha: Grid
    blocks: int | Literal["layers"] | list[int | Literal["layers"]] = 3
    data: dict[str, Any] | None = None


class AmaCandidate(MergeCandidate):
    """A merge whose recipe `mergetool ama` learns; the ratios are kept in OUT/candidates/NAME.ratios.yaml."""

    kind = "ama"
    schema = AmaGrid
    searchable = False
    doing = "training"

    @classmethod
    def expand(
        cls,
        study: StudyModels,
        entry: Entry,
        grid: AmaGrid,
        trainings: Sequence[Candidate],
        named: Sequence[str] | None = None,
    ) -> list[Candidate]:
        """One AMA recipe per mean and number of blocks and, where this study makes the RLHF model, per seed of that.

        Raises:
            RecipeError: the RLHF model is a grid.
        """
        points, varying = grid_points({"alpha": grid.alpha, "blocks": grid.blocks})
        data = grid.data
        if data is None:  # what alignment trained on: the chosen sides
            shared = study.align_defaults.data
            data = {key: value for key, value in shared.items() if key in ("train", "limit", "max_length")}
        data = {
            key: str(study.source(value)) if key in ("train", "eval") and isinstance(value, str) else value
            for key, value in data.items()
        }
        rest = dict(grid.model_extra or {})
        if isinstance(rest.get("reward"), str):
            rest["reward"] = study.reward_source(rest["reward"])
        runs = rlhf_runs(study, trainings)
        found: list[Candidate] = []
        for point, run in itertools.product(points, runs):
            shown = {key: point[key] for key in varying} or {"alpha": point["alpha"]}
            group = f"{entry.name} {label_of(shown)}"
            whole = {"sft_model": "SFT", "rlhf_model": "RLHF", **point, **rest, "data": data}
            name = f"{group} seed={run.seed}" if run is not None and len(runs) > 1 else group
            seed = run.seed if run is not None else None
            found.append(cls(name, group, entry.family_name, entry.name, shown, seed, whole, run))
        return found

    def _identity_parts(self, workspace: Workspace) -> list[Any]:
        return [self.kind, with_rows_by_content(self._recipe_by_content(workspace), workspace.identify)]

    def check(self, models: dict[str, str]) -> None:
        from mergetool.ama import check_ama

        check_ama(_checked(self.with_models(models)))

    def make(self, workspace: Workspace) -> MergedWeights:
        """Learns the ratios, unless an earlier run of the same recipe has left them in its note."""
        from mergetool.ama import run_ama

        directory = workspace.directory(self.name)
        note = directory.with_name(directory.name + ".ratios.yaml")
        note.parent.mkdir(exist_ok=True)
        recipe = _checked(self.resolved_recipe(workspace))
        return MergedWeights(run_ama(recipe, note, device=workspace.device, fresh=workspace.fresh)[0].recipe, learned=True)


def _checked(recipe: dict[str, Any] | None) -> AmaRecipe:
    """An AMA recipe with absolute paths.

    Raises:
        RecipeError: it is not valid.
    """
    from mergetool.ama import ama_recipe

    return ama_recipe(recipe or {}, Path("/"), "its AMA recipe")
