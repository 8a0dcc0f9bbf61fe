"""A study of models and tasks, as values and as YAML with comments: what `mergetool pick` runs and `mergetool init` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergetool.config.sources import LAB, resolve_source
from mergetool.errors import RecipeError
from mergetool.study.pick.candidates import candidates_of, names_of
from mergetool.study.pick.tasks import entries_of

MODELS = ("SFT", "RLHF")


def study_of(
    models: Sequence[str],
    tasks: Sequence[str],
    base: str | None = None,
    stay: str | None = None,
    here: str | Path = ".",
    limit: int | None = None,
) -> dict[str, Any]:
    """The study that compares what can be merged of these models on these tasks.

    Args:
        models: two or more: directories, ``lab:NAME`` or Hub ids.
        tasks: as `entries_of`. The first is one axis of the picture and the others share the second.
        base: what all of them were trained from.
        stay: rows of what must stay as it is in the first model, for null-space merging.
        here: where relative paths start; paths of the study are absolute.
        limit: rows of each half of a file, or documents of a benchmark's half.

    Raises:
        MergetoolError: too few models, or a task that is neither a file nor a benchmark.
    """
    if len(models) < 2:
        raise RecipeError("one model is nothing to merge", "name two or more")
    first, second, *others = (_placed(model, here) for model in models)
    entries = [{**entry, **({"limit": limit} if limit else {})} for entry in entries_of(tasks, here)]
    gain, *keep = entries
    return {
        "name": " and ".join(Path(model.removeprefix(LAB)).name or model for model in models),
        "models": {"sft": first, "rlhf": second, **({"base": _placed(base, here)} if base else {})},
        **({"calibration": {"data": _placed(stay, here)}} if stay else {}),
        "candidates": candidates_of(others, base is not None, stay is not None),
        "gain": [gain],
        **({"keep": keep} if keep else {}),
        "select": {"goal": "all", **({"inputs": names_of(others)} if others else {})},
    }


def _placed(text: str, here: str | Path) -> str:
    if text.startswith(LAB):
        return text
    found = resolve_source(text, here)
    return str(found.absolute()) if isinstance(found, Path) else found


COMMENTS = {
    "models": "sft is the first model and rlhf the second: distances are from the first",
    "calibration": "rows whose outputs should stay as they are in the first model; their answers are not read",
    "candidates": "a list is a grid, and lists multiply; add lines, values and methods (mergetool methods lists them)",
    "gain": "what a merge should be good at; data: one file is cut into validation and test rows by a hash of its prompts",
    "keep": "and what else; any metric may stand on either axis (docs/metrics.md)",
    "select": (
        "all: every task counts alike, as a share between the worst input (0) and the best (1); trade: the best `keep` metric "
        "among what keeps keep_gain of the second model's gain over the first"
    ),
}


def as_yaml(study: dict[str, Any], head: str) -> str:
    """The study as a file that somebody may edit, each part with a line on what it is for.

    Args:
        head: the comment at its top.
    """
    import yaml

    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    for key, value in study.items():
        if key in COMMENTS:
            lines += ["", f"# {COMMENTS[key]}"]
        if isinstance(value, list):
            lines.append(f"{key}:")
            lines += [f"  - {_inline(item, yaml)}" for item in value]
        elif isinstance(value, dict):
            lines.append(f"{key}:")
            lines += [f"  {inner}: {_inline(item, yaml)}" for inner, item in value.items()]
        else:
            lines.append(f"{key}: {_inline(value, yaml)}")
    return "\n".join(lines) + "\n"


def _inline(value: Any, yaml: Any) -> str:
    """On one line, as a person writes it."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
