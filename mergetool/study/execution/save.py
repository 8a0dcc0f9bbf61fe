"""Writes the checkpoints of candidates that a study has measured in memory: complete directories in OUT/candidates."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergetool.errors import OutputError
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.merge import MergeCandidate
from mergetool.study.candidates.weights import MergedWeights
from mergetool.study.candidates.workspace import Workspace
from mergetool.study.execution.run import StudyResult
from mergetool.study.recipe.study_recipe import StudyRecipe

if TYPE_CHECKING:
    from mergetool.merge import Plan

WHICH = ("best", "front", "all")
_AT_ONCE = 8  # merges that share a reading of their inputs: each has its own files open


@dataclass(frozen=True)
class Saved:
    """A candidate on disk.

    Attributes:
        name: of the candidate.
        path: its checkpoint, or a Hub id.
        written: by this call; the others were there.
    """

    name: str
    path: Path | str
    written: bool


def save(recipe: StudyRecipe, result: StudyResult, which: str) -> list[Saved]:
    """Makes sure that candidates lie on disk as checkpoints, with weights, configuration, tokenizer and model card.

    Merges are written as `mergetool merge` writes them, into OUT/candidates/NAME with their recipe beside it; those of
    the same inputs share one reading. Trained candidates are there already; where one has been deleted it is trained
    again. Models and ready checkpoints stay where they are.

    Args:
        recipe, result: the study and its outcome.
        which: "best": the choice, each of its seeds; "front": all on the Pareto front; "all": every candidate that was
            measured.

    Raises:
        OutputError: nothing was chosen, or the disk has too little room; nothing is written then.
        MergetoolError: an input has changed since the study ran.
    """
    workspace = Workspace(recipe, result.out)
    found: list[Saved] = []
    merges: list[tuple[Candidate, Plan]] = []
    for candidate in _wanted(result, which):
        path = candidate.checkpoint(workspace)
        written = path is None
        if path is None:
            _make_sources(candidate, workspace)
            weights = candidate.make(workspace)
            if isinstance(weights, MergedWeights):
                merges.append((candidate, _plan(candidate, weights)))
                path = workspace.directory(candidate.name)
            else:
                path = weights.path
        found.append(Saved(candidate.name, path, written))
    _must_fit(result.out, [plan for _, plan in merges], which)
    for some in _by_inputs(merges):
        _write(workspace, some)
    return found


def _make_sources(candidate: Candidate, workspace: Workspace) -> None:
    """Makes again what a candidate is made of, where it is not there any more."""
    for one in candidate.sources.values():
        if one.checkpoint(workspace) is None:
            _make_sources(one, workspace)
            one.make(workspace)


def _wanted(result: StudyResult, which: str) -> list[Candidate]:
    summary = result.summary
    if which == "best" and summary.choice.group is None:
        raise OutputError(f"--save best: nothing was chosen, {summary.choice.why}", "take --save front or --save all")
    groups = {"best": [summary.choice.group], "front": summary.front}.get(which, [one.name for one in summary.groups])
    rows = zip(result.candidates, result.rows, strict=True)
    return [one for one, row in rows if one.group in groups and not row["error"]]


def _plan(candidate: Candidate, weights: MergedWeights) -> Plan:
    from mergetool.config.strict_yaml import validate
    from mergetool.merge import MergeRecipe, plan_merge

    return plan_merge(validate(MergeRecipe, weights.recipe, candidate.name))


def _must_fit(out: Path, plans: list[Plan], which: str) -> None:
    need, free = sum(_size(plan) for plan in plans), shutil.disk_usage(out).free
    if need > free:
        fewer = {"all": "take --save front or best, or make room", "front": "take --save best, or make room"}
        raise OutputError(
            f"--save {which}: {len(plans)} merges need {need / 1e9:.1f} GB, and the disk of {out} has {free / 1e9:.1f} GB free",
            fewer.get(which, "make room"),
        )


def _size(plan: Plan) -> int:
    """Bytes that a merge will take; what mergekit does is as large as its largest input."""
    inputs = [sum(tensor.nbytes for tensor in source.layout.tensors.values()) for source in plan.sources]
    return plan.bytes_written or max(inputs, default=0)


def _by_inputs(merges: list[tuple[Candidate, Plan]]) -> list[list[tuple[Candidate, Plan]]]:
    """Merges of the same inputs together, a few at a time; what mergekit does stands alone."""
    together: list[list[tuple[Candidate, Plan]]] = []
    for candidate, plan in merges:
        last = next((some for some in reversed(together) if _same(some[0][1], plan)), None)
        if last is None or len(last) == _AT_ONCE:
            together.append([(candidate, plan)])
        else:
            last.append((candidate, plan))
    return together


def _same(one: Plan, other: Plan) -> bool:
    return one.engine == other.engine == "native" and one.sources == other.sources


def _write(workspace: Workspace, some: list[tuple[Candidate, Plan]]) -> None:
    from mergetool.merge import merge_to_directories

    outs = []
    for candidate, plan in some:
        out, _ = workspace.claim(candidate.name, candidate.identities(workspace), MergeCandidate.command, plan.recipe.to_dict())
        outs.append(out)
    merge_to_directories([plan for _, plan in some], outs)
