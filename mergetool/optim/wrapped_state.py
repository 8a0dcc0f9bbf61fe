"""The saved state of an optimizer that OnlineMerge is put around, and of the merging itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from mergetool.errors import CheckpointError
from mergetool.optim.loading import OURS, count_of, entries_of, number_of

_MERGING = frozenset(["merge_step", "anchor"])


def wrapped_state(
    state: dict[str, Any], parameter: torch.Tensor, base: torch.optim.Optimizer, settings: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """A parameter's saved state, checked against what a step of the optimizer keeps where that is torch's.

    Args:
        state: as saved; empty where the parameter has made no step.
        parameter: whose it is.
        base: the optimizer that is wrapped.
        settings: the group's.
        name: the parameter's.

    Raises:
        CheckpointError: something is missing, of another shape, or no number.
    """
    kept = dict(state)
    if "merge_step" in state:
        kept["merge_step"] = count_of(state["merge_step"], f"merge_step of {name}")
    if "anchor" in state:
        kept["anchor"] = entries_of(state["anchor"], parameter, parameter.dtype, f"anchor of {name}")
    own = {key: value for key, value in state.items() if key not in _MERGING}
    expected = _kept_by_a_step(base, settings, parameter) if state else None
    if expected is None:
        return kept
    lacking, over = sorted(set(expected) - set(own)), sorted(map(str, set(own) - set(expected)))
    if lacking or over:
        what = f"has no {lacking[0]}" if lacking else f"has {over[0]}, which {type(base).__name__} has not"
        raise CheckpointError(f"the state of {name} {what}", OURS)
    for key, value in expected.items():
        kept[key] = _like(value, own[key], parameter, f"{key} of {name}")
    return kept


def _kept_by_a_step(base: torch.optim.Optimizer, settings: Mapping[str, Any], parameter: torch.Tensor) -> dict[str, Any] | None:
    """The state after a step of the same optimizer on a small tensor of as many dimensions; None where it is not torch's."""
    kind = type(base)
    if not f"{kind.__module__}.".startswith("torch.optim.") or issubclass(kind, torch.optim.LBFGS | torch.optim.SparseAdam):
        return None
    small = torch.nn.Parameter(torch.zeros([2 + i for i in range(parameter.dim())], dtype=parameter.dtype))
    small.grad = torch.zeros_like(small)
    probe = kind.__new__(kind)
    group = {**settings, "params": [small], "capturable": False}
    probe.__setstate__({"state": defaultdict(dict), "param_groups": [group], "defaults": dict(base.defaults)})
    probe.step()
    return dict(probe.state[small])


def _like(small: Any, value: Any, parameter: torch.Tensor, what: str) -> Any:
    """The value, where it is to the parameter what `small` is to the small tensor."""
    if not isinstance(small, torch.Tensor) or not small.dim():
        if small is not None and number_of(value, what) < 0:
            raise CheckpointError(f"{what} is {value}, below 0", OURS)
        return value
    if value is None:
        raise CheckpointError(f"{what} is missing", OURS)
    shape = tuple(size if few > 1 else 1 for few, size in zip(small.shape, parameter.shape, strict=True))
    return entries_of(value, parameter, small.dtype, what, None if shape == tuple(parameter.shape) else shape)
