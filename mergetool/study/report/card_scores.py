"""The scores of one result, for its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergetool import reading
from mergetool.checkpoint.manifest import Manifest
from mergetool.errors import MergetoolError, OutputError
from mergetool.evaluate.metrics import METRICS
from mergetool.hub.card import Evaluation
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.kinds import OF_ROW
from mergetool.study.execution.results import RESULTS

SPLIT = "test"


def evaluations(out: Path, manifest: Manifest) -> list[Evaluation]:
    """What a study measured of a result, on the rows that were not used to choose.

    The candidate is found by its recipe, so that a card can show no scores but the model's own.

    Args:
        out: the directory of `mergetool compare`.
        manifest: mergetool.json of the result.

    Raises:
        OutputError: there is no study, or none of its candidates has the result's recipe.
    """
    path = out / RESULTS
    if not path.is_file():
        raise OutputError(f"{out}: holds no study ({RESULTS})", "name the OUT of mergetool compare")
    command = manifest.kind
    found, names = None, []
    for line in reading.text(path, reading.LOG, errors="replace").split("\n"):
        try:
            row = reading.parsed(line)
        except ValueError:
            continue  # the line that a kill cut short
        made = row.get("learned") or row.get("recipe")  # of AMA: the merge that it learned
        kind = OF_ROW.get(str(row.get("kind")))
        if row.get("error") or not made or kind is None or kind.command != command:
            continue
        names.append(row["name"])
        if (wanted := _canonical(kind, manifest.recipe)) and _canonical(kind, made) == wanted:
            found = row  # a later line of the same candidate replaces it
    if found is None:
        known = ", ".join(dict.fromkeys(names)) or "none"
        raise OutputError(
            f"{out}: no candidate has this result's recipe (measured there: {known})",
            "merge the recipe that report.html shows, or leave out --results",
        )
    rows = []
    for name, score in found["scores"][SPLIT].items():
        entry, _, metric = name.rpartition(".")
        unit = METRICS[metric].unit if metric in METRICS else ""
        values = {key: score[key] for key in ("value", "low", "high", "n")}
        rows.append(Evaluation(entry, SPLIT, metric.replace("_", " "), unit, **values))
    return rows


def _canonical(kind: type[Candidate], recipe: dict[str, Any]) -> dict[str, Any] | None:
    """A recipe without what it leaves out; None where this version cannot read it."""
    try:
        return kind.canonical(recipe)
    except MergetoolError:
        return None
