"""Makes and measures one candidate; what goes wrong with it becomes a line of results that says so."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mergetool import hub
from mergetool.errors import MergetoolError, without_tokens
from mergetool.fingerprints import digest
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.weights import MergedWeights
from mergetool.study.candidates.workspace import Workspace, slug
from mergetool.study.execution.bench import Bench
from mergetool.study.execution.results import ROWS, SAMPLES
from mergetool.study.recipe.expand import expand
from mergetool.study.recipe.splits import metrics_identity
from mergetool.study.recipe.study_recipe import StudyRecipe


class Evaluator:
    """What is known of a study's candidates before any of them is made, and the bench that each is measured on.

    Args:
        recipe: the study.
        out: its directory.
        fresh: train again what an earlier run has trained.
        device, dtype: of the model that is measured.

    Raises:
        MergetoolError: a model or a data file of the study is missing, or its candidates make no sense.
    """

    def __init__(
        self, recipe: StudyRecipe, out: Path, fresh: bool = False, device: str | None = None, dtype: str | None = None
    ) -> None:
        self.recipe, self.out, self.fresh = recipe, out, fresh
        self.device, self.dtype = device, dtype
        hub.hold(recipe.commits)
        self.candidates = expand(recipe)
        self.scoring = metrics_identity(recipe)
        self.workspace = Workspace(recipe, out, fresh, device)
        self.bench = Bench(recipe, out, self.workspace.identities["SFT"], self.scoring, device, dtype)

    def key(self, candidate: Candidate) -> str:
        """Names the candidate's scores: its weights, the metrics, the rows and the reference."""
        return digest([candidate.identity(self.workspace), self.scoring, self.workspace.identities["SFT"]])

    def legacy_key(self, candidate: Candidate) -> str:
        """The key of the same scores from before identity was content: what was measured then is not measured again."""
        workspace = self.workspace.legacy
        scoring = metrics_identity(self.recipe, workspace.identify)
        return digest([candidate.identity(workspace), scoring, workspace.identities["SFT"]])

    def about(self, candidate: Candidate) -> dict[str, Any]:
        """The part of a line of results that is known beforehand."""
        about = {
            "name": candidate.name,
            "group": candidate.group,
            "family": candidate.family,
            "kind": candidate.kind,
            "seed": candidate.seed,
            "settings": candidate.settings,
            "recipe": candidate.resolved_recipe(self.workspace),
            "error": None,
        }
        try:
            return {"key": self.key(candidate), **about}
        except MergetoolError as error:
            return {"key": digest(["failed", candidate.name, self.scoring]), **about, "error": str(error)}

    def row(self, candidate: Candidate, tell: Callable[[str], None] = lambda what: None) -> dict[str, Any]:
        """The candidate's line of results, made and measured now; where that fails, a line that says why.

        Under ROWS and SAMPLES it has what `Results` keeps beside the lines.

        Raises:
            Exception: it is the SFT model that failed: every reward is relative to it.
        """
        row = self.about(candidate)
        if row["error"]:
            return row
        try:
            tell(f"{candidate.name}: {candidate.doing}")
            began, busy = time.perf_counter(), time.process_time()
            weights = candidate.make(self.workspace)
            if isinstance(weights, MergedWeights) and weights.learned:
                row["learned"] = weights.recipe
            made = time.perf_counter()
            tell(f"{candidate.name}: measuring")
            measured = self.bench.score(lambda live: weights.put(live, candidate.name))
            row["scores"], row["distances"] = measured.scores, measured.distances
            row[ROWS], row[SAMPLES] = measured.rows, measured.samples
            row["seconds"] = {
                "make": round(made - began, 3),
                "measure": round(time.perf_counter() - made, 3),
                "cpu": round(time.process_time() - busy, 3),
            }  # does not grow on a busy machine
        except Exception as error:
            if candidate.name == "sft":
                raise
            row["error"] = (
                str(error)
                if isinstance(error, MergetoolError)
                else without_tokens(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            )
            if not isinstance(error, MergetoolError):
                row["bug"] = True
                log = self.out / "errors" / f"{slug(candidate.name)}.txt"
                log.parent.mkdir(exist_ok=True)
                log.write_text(without_tokens(traceback.format_exc()), encoding="utf-8")
        return row
