"""Models along a training run as candidates: early stopping as a baseline, from one training.

Either the study trains the run (`checkpoints:` of an align candidate), and its training leaves the weights of the asked
steps behind; or the run is there already, and its checkpoints are named (`checkpoint:` with a list or a pattern).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mergetool.align.along import step_of
from mergetool.config.sources import looks_like_hub_id
from mergetool.errors import RecipeError
from mergetool.study.candidates.grid import Candidate, label_of
from mergetool.study.recipe.study_recipe import CandidateEntry, StudyRecipe


def along_points(recipe: StudyRecipe, entry: CandidateEntry, runs: list[Candidate]) -> list[Candidate]:
    """A candidate for each asked place in each run of an align entry, in the order of the run.

    Args:
        runs: the entry's own candidates; each is trained once, whatever is asked of it.

    Raises:
        RecipeError: a step that the run does not have, or `every` where the run's length is not known beforehand.
    """
    asked = entry.align.checkpoints if entry.align else None
    if asked is None:
        return []
    steps = (runs[0].recipe or {})["training"].get("max_steps", -1)
    if isinstance(asked, dict):
        if steps <= 0:
            raise RecipeError(
                f"candidates: '{entry.name}': checkpoints every {asked['every']} steps of a run whose length is not known yet",
                "set training.max_steps, or give shares of the run: checkpoints: [0.25, 0.5, 0.75]",
            )
        asked = list(range(asked["every"], steps, asked["every"]))
        if not asked:
            raise RecipeError(
                f"candidates: '{entry.name}': the run ends before its first checkpoint", "lower checkpoints.every"
            )
    places: list[int | float] = []
    for place in asked:
        at: int | float = place if isinstance(place, float) and place < 1 else int(place)
        if steps > 0 and at < 1:
            at = step_of(at, steps)
        if 0 < steps <= at:
            raise RecipeError(f"candidates: '{entry.name}': checkpoint at step {at} of {steps}", "give earlier steps")
        places.append(at)
    found = []
    for run in runs:
        for at in dict.fromkeys(places):
            shown: dict[str, Any] = {"share" if at < 1 else "step": at}
            group = f"{run.group} {label_of(shown)}"
            found.append(
                Candidate(
                    f"{group} seed={run.seed}" if run.name != run.group else group,
                    group,
                    f"{entry.family or entry.name} along training",
                    "along",
                    entry.name,
                    {**run.settings, **shown},
                    run.seed,
                    run.recipe,
                    needs=run.name,
                )
            )
    return found


def ready_points(recipe: StudyRecipe, entry: CandidateEntry) -> list[Candidate]:
    """Ready checkpoints: one, a list, or all that a pattern finds; several are one family, in the order of their numbers.

    Raises:
        RecipeError: a pattern finds nothing.
    """
    family = entry.family or entry.name
    texts = entry.checkpoint if isinstance(entry.checkpoint, list) else [entry.checkpoint or ""]
    if not isinstance(entry.checkpoint, list) and not _is_pattern(texts[0]):
        return [Candidate(entry.name, entry.name, family, "checkpoint", entry.name, path=recipe.source(texts[0]))]
    if not texts:
        raise RecipeError(f"candidates: '{entry.name}': an empty list of checkpoints", "name one, or give a pattern")
    places: list[Path | str] = []
    for text in texts:
        places += _matching(recipe, entry.name, text) if _is_pattern(text) else [recipe.source(text)]
    found = []
    for place in sorted(dict.fromkeys(places), key=_order):
        name = place.name if isinstance(place, Path) else place
        step = re.fullmatch(r"(?:checkpoint|step|global_step)[-_]?(\d+)", name)
        shown: dict[str, Any] = {"step": int(step.group(1))} if step else {}
        label = f"{entry.name} {label_of(shown) if shown else name}"
        found.append(Candidate(label, label, family, "checkpoint", entry.name, shown, path=place))
    return found


def _is_pattern(text: str) -> bool:
    return any(mark in text for mark in "*?[") and not looks_like_hub_id(text)


def _matching(recipe: StudyRecipe, name: str, text: str) -> list[Path | str]:
    import glob

    whole = str(recipe.directory / Path(text).expanduser())
    found = [Path(one) for one in glob.glob(whole) if (Path(one) / "config.json").is_file()]
    if not found:
        raise RecipeError(f"candidates: '{name}': no checkpoint directory matches {whole}", "check the path; quote the pattern")
    return list(found)


def _order(place: Path | str) -> list[tuple[int, int | str]]:
    """checkpoint-20 comes before checkpoint-100."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", str(place)) if part]
