"""Which merges are worth a try: of two models or more, with a base and without, with rows of what must stay and without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SHARES = [0.5, 0.3, 0.7, 0.1, 0.9]  # the middle first: where time is up early, the last ones were not measured
MIDDLE = [0.5, 0.3, 0.7]
DENSITY = 0.5
SUMS = [0.5, 0.7, 1.0]
"""Of each task vector, where they are added to the base: 1 is all of each, as several fine-tunes of one base are joined."""


def candidates_of(others: Sequence[str], base: bool, stay: bool) -> list[dict[str, Any]]:
    """Lines of `candidates` of a study whose SFT model is the first input and whose RLHF model is the second.

    Args:
        others: further inputs.
        base: whether the study has a base model, so that task vectors may be sparsified and added.
        stay: whether it has rows of what must stay.
    """
    if others:
        return [*_inputs(others), *_of_several(others, base)]
    found: list[dict[str, Any]] = [
        {"name": "linear", "merge": {"merge_method": "linear", "weight": SHARES}},
        {"name": "slerp", "merge": {"merge_method": "slerp", "weight": MIDDLE}},
    ]
    if stay:
        found.append({"name": "null_space", "merge": {"merge_method": "null_space", "strength": [1, 3, 0.3]}})
    if base:
        found += [
            {"name": method, "merge": {"merge_method": method, "weight": MIDDLE, "density": DENSITY}}
            for method in ("ties", "dare_ties")
        ]
        found += _sums(["SFT", "RLHF"])
    else:
        found.append(
            {
                "name": "dare from A",
                "merge": {
                    "merge_method": "dare_linear",
                    "relative_to": "sft",
                    "alpha": 0,
                    "weight": [0.5, 1],
                    "density": DENSITY,
                },
            }
        )
    return found


def _inputs(others: Sequence[str]) -> list[dict[str, Any]]:
    named = zip(names_of(others), others, strict=True)
    return [{"name": name, "family": "inputs", "checkpoint": place} for name, place in named]


def names_of(others: Sequence[str]) -> list[str]:
    """What further inputs are called in a study: C, D, ..."""
    return [chr(ord("C") + at) for at in range(len(others))]


def _of_several(others: Sequence[str], base: bool) -> list[dict[str, Any]]:
    """Means of all, of all but one, with one heavier; and sums of task vectors."""
    models = ["SFT", "RLHF", *others]
    called = ["A", "B", *names_of(others)]
    even = dict.fromkeys(models, 1.0)
    found = [_linear("linear even", even)]
    for name, letter in zip(models, called, strict=True):
        found.append(_linear(f"linear more {letter}", {**even, name: 2.0}))
        found.append(_linear(f"linear without {letter}", {other: 1.0 for other in models if other != name}))
    return found + (_sums(models) if base else [])


def _linear(name: str, weights: dict[str, float]) -> dict[str, Any]:
    entries = [{"model": model, "parameters": {"weight": weight}} for model, weight in weights.items()]
    return {"name": name, "family": "linear", "recipe": {"merge_method": "linear", "models": entries}}


def _sums(models: Sequence[str]) -> list[dict[str, Any]]:
    """The base plus a share of every task vector, plain and sparsified."""
    found = []
    for method, sparse in (("task_arithmetic", {}), ("ties", {"density": DENSITY}), ("dare_ties", {"density": DENSITY})):
        for share in SUMS if not sparse else SUMS[-1:]:
            entries = [{"model": model, "parameters": {"weight": share, **sparse}} for model in models]
            recipe: dict[str, Any] = {"merge_method": method, "base_model": "BASE", "models": entries}
            if sparse:
                recipe["parameters"] = {"normalize": False}
            found.append({"name": f"{method} sum={share:g}", "family": f"{method} sums", "recipe": recipe})
    return found
