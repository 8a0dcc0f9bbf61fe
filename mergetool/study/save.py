"""Writes the checkpoints of candidates that a study has measured in memory: complete directories in OUT/candidates."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.errors import OutputError
from mergetool.exports import make_callable
from mergetool.study.grid import Candidate
from mergetool.study.maker import Maker
from mergetool.study.recipe import StudyRecipe
from mergetool.study.run import StudyResult

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
    maker = Maker(recipe, result.out)
    found: dict[str, Saved] = {}
    merges: list[tuple[Candidate, Plan]] = []
    for candidate in _wanted(result, which):
        if candidate.path is not None:
            found[candidate.name] = Saved(candidate.name, candidate.path, False)
        elif candidate.kind == "along":
            written = _trained(maker, maker.by_name[candidate.needs or ""])
            found[candidate.name] = Saved(candidate.name, maker.place_along(candidate), written)
        elif candidate.kind == "align":
            written = _trained(maker, candidate)
            found[candidate.name] = Saved(candidate.name, maker.place(candidate.name), written)
        else:
            if there := not maker.is_made(candidate):
                merges.append((candidate, _plan(maker, candidate)))
            found[candidate.name] = Saved(candidate.name, maker.place(candidate.name), there)
    _must_fit(result.out, [plan for _, plan in merges], which)
    for some in _by_inputs(merges):
        _write(maker, some)
    return list(found.values())


def _wanted(result: StudyResult, which: str) -> list[Candidate]:
    summary = result.summary
    if which == "best" and summary.choice.group is None:
        raise OutputError(f"--save best: nothing was chosen, {summary.choice.why}", "take --save front or --save all")
    groups = {"best": [summary.choice.group], "front": summary.front}.get(which, [one.name for one in summary.groups])
    rows = zip(result.candidates, result.rows, strict=True)
    return [one for one, row in rows if one.group in groups and not row["error"]]


def _trained(maker: Maker, candidate: Candidate) -> bool:
    """Whether a run had to be made again."""
    there = maker.is_made(candidate)
    maker.train(candidate, fresh=False)
    return not there


def _plan(maker: Maker, candidate: Candidate) -> Plan:
    from mergetool.config.strict_yaml import validate
    from mergetool.merge import MergeRecipe, plan_merge

    if candidate.needs:
        maker.train(maker.by_name[candidate.needs], fresh=False)
    return plan_merge(validate(MergeRecipe, maker.merge_of(candidate), candidate.name))


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


def _write(maker: Maker, some: list[tuple[Candidate, Plan]]) -> None:
    from mergetool.merge import merge_to_directories

    places: list[Path] = []
    for candidate, plan in some:
        recipe: dict[str, Any] = plan.recipe.to_dict()
        places.append(maker.claim(candidate, recipe)[0])
    merge_to_directories([plan for _, plan in some], places)


make_callable(__name__)  # mergetool.study.save is this module, and the function that the package documents
