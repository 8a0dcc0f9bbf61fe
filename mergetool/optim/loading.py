"""A state_dict before it is loaded: checked as new groups are, so that what is loaded can be stepped.

The fused and the compiled kernels take sizes and types on trust. What torch finds out at the next step, or in a crash, is found
here, and nothing is changed where a state is refused.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from mergetool.errors import CheckpointError
from mergetool.optim.names import canonical

OURS = "load the state that this optimizer saved, of the same parameters"
REAL = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Saved(NamedTuple):
    """A group of a state_dict.

    Attributes:
        settings: all of the group but its parameters.
        states: of the parameters, in the optimizer's order; empty where one has none.
    """

    settings: dict[str, Any]
    states: list[dict[str, Any]]


def saved_groups(given: Any, groups: Sequence[Mapping[str, Any]]) -> list[Saved]:
    """The groups of a state_dict in the order of the optimizer's, and the states in the order of its parameters.

    Where both have names they are matched by them; else by place, as torch does.

    Args:
        given: a state_dict.
        groups: the optimizer's.

    Raises:
        CheckpointError: it is no state_dict, or of other parameters.
    """
    state, saved = _parts(given)
    ids = [_ids(group) for group in saved]
    lengths, ours = [len(i) for i in ids], [len(group["params"]) for group in groups]
    if len(lengths) != len(ours) or sum(lengths) != sum(ours):
        raise CheckpointError(
            f"the state has {_groups(lengths)} and the optimizer {_groups(ours)}",
            "build the optimizer with the groups that it was saved with",
        )
    known = {i for each in ids for i in each}
    if len(known) != sum(lengths) or any(i not in known for i in state if isinstance(i, int)):
        raise CheckpointError("the state's parameters are not numbered one by one", OURS)
    found = []
    for at, places in _order(saved, ids, groups):
        settings = {key: value for key, value in saved[at].items() if key not in ("params", "param_names")}
        if "param_names" in saved[at]:
            settings["param_names"] = [saved[at]["param_names"][place] for place in places]
        found.append(Saved(settings, [_state_of(state, ids[at][place]) for place in places]))
    for group, one in zip(groups, found, strict=True):
        if "param_names" in group:
            one.settings["param_names"] = list(group["param_names"])
    return found


def _parts(given: Any) -> tuple[Mapping[Any, Any], list[Mapping[str, Any]]]:
    if not isinstance(given, Mapping) or not {"state", "param_groups"} <= set(given):
        raise CheckpointError("this is no optimizer's state_dict: it has no 'state' and 'param_groups'", OURS)
    state, groups = given["state"], given["param_groups"]
    whole = isinstance(state, Mapping) and isinstance(groups, Sequence)
    if not whole or not all(isinstance(group, Mapping) and isinstance(group.get("params"), Sequence) for group in groups):
        raise CheckpointError("the state's groups are damaged", OURS)
    return state, list(groups)


def _ids(group: Mapping[str, Any]) -> list[Hashable]:
    ids = list(group["params"])
    names = group.get("param_names")
    broken = names is not None and not (
        isinstance(names, Sequence) and len(names) == len(ids) and all(isinstance(name, str) for name in names)
    )
    if broken or not all(isinstance(i, int | str) for i in ids):
        raise CheckpointError("the state's groups are damaged: parameters and their names do not go together", OURS)
    return ids


def _groups(lengths: list[int]) -> str:
    return f"{len(lengths)} group{'s' * (len(lengths) != 1)} of {', '.join(map(str, lengths))} parameters"


def _state_of(state: Mapping[Any, Any], key: Hashable) -> dict[str, Any]:
    found = state.get(key, {})
    if not isinstance(found, Mapping):
        raise CheckpointError(f"the state of parameter {key} is {type(found).__name__}, not a mapping", OURS)
    return dict(found)


Order = list[tuple[int, Sequence[int]]]


def _order(saved: Sequence[Mapping[str, Any]], ids: list[list[Hashable]], groups: Sequence[Mapping[str, Any]]) -> Order:
    """For each of the optimizer's groups: which saved one it is, and the saved places of its parameters."""
    by_place: Order = [(at, range(len(i))) for at, i in enumerate(ids)]
    fits = all(len(i) == len(group["params"]) for i, group in zip(ids, groups, strict=True))
    wholly = all(isinstance(i, str) for each in ids for i in each)
    if wholly:  # distributed checkpoints have names in place of numbers
        theirs = [[canonical(str(i)) for i in each] for each in ids]
    elif all("param_names" in group or not group["params"] for group in saved):
        theirs = [[canonical(name) for name in group.get("param_names", ())] for group in saved]
    else:
        theirs = None
    named = all("param_names" in group or not group["params"] for group in groups)
    ours = [[canonical(name) for name in group.get("param_names", ())] for group in groups] if named else None
    if theirs is None or ours is None or (wholly and fits and _flat(theirs) != _flat(ours)):
        if not fits:
            raise CheckpointError(
                f"the state has {_groups([len(i) for i in ids])} and the optimizer "
                f"{_groups([len(group['params']) for group in groups])}",
                "build the optimizer with the groups that it was saved with",
            )
        return by_place
    if _flat(theirs) != _flat(ours):
        raise CheckpointError(
            f"the state is of other parameters: {_listing(_flat(ours) - _flat(theirs), _flat(theirs) - _flat(ours))}", OURS
        )
    order: Order = []
    left = dict(enumerate(theirs))
    for at, names in enumerate(ours):
        place = next((i for i in sorted(left, key=lambda i: i != at) if set(left[i]) == set(names)), None)
        if place is None or len(set(names)) != len(names):
            raise CheckpointError(
                f"the optimizer's group {at} holds other parameters than any of the state's groups",
                "build the optimizer with the groups that it was saved with",
            )
        where = {name: i for i, name in enumerate(left.pop(place))}
        order.append((place, [where[name] for name in names]))
    return order


def _flat(names: list[list[str]]) -> set[str]:
    return {name for each in names for name in each}


def _listing(lacking: set[str], over: set[str]) -> str:
    parts = [f"it {verb} {', '.join(sorted(names)[:3])}{', …' * (len(names) > 3)}" for verb, names in
             (("lacks", lacking), ("has", over)) if names]  # fmt: skip
    return " and ".join(parts)


# --- what a parameter's state holds -----------------------------------------------------------------------------------


def count_of(value: Any, what: str) -> torch.Tensor:
    """A number of steps as the optimizers keep it: fp32 on the CPU, no dimensions.

    Args:
        value: a tensor of one entry, or a number.
        what: its place, for the message.

    Raises:
        CheckpointError: it is not a whole number from 0, or of a type too coarse to count so far.
    """
    number = number_of(value, what)
    coarse = isinstance(value, torch.Tensor) and value.is_floating_point() and number > 2 / torch.finfo(value.dtype).eps
    if number < 0 or number != int(number) or coarse:
        raise CheckpointError(f"{what} is {number:g}, not a number of steps", OURS)
    return torch.tensor(number, dtype=torch.float32)


def number_of(value: Any, what: str) -> float:
    """A finite number, or a tensor's only entry.

    Raises:
        CheckpointError: it is neither.
    """
    if isinstance(value, torch.Tensor):
        plain = getattr(value, "_local_tensor", value)
        usable = plain.numel() == 1 and plain.layout == torch.strided and not plain.is_complex() and not plain.is_meta
        value = plain.item() if usable and not plain.is_quantized else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointError(f"{what} is {value!r}, not a number", OURS)
    return float(value)


def entries_of(
    value: Any, parameter: torch.Tensor, dtype: torch.dtype, what: str, shape: tuple[int, ...] | None = None
) -> torch.Tensor:
    """One number for each entry of a parameter: contiguous, of `dtype`, sharded as the parameter is.

    Args:
        value: what the state holds.
        parameter: whose state it is.
        dtype: what the optimizer keeps them in.
        what: its place, for the message.
        shape: where it is not the parameter's.

    Raises:
        CheckpointError: it is of another shape, or holds no real numbers.
    """
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized or value.dtype not in REAL:
        kind = f"{value.dtype} of layout {value.layout}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise CheckpointError(f"{what} is {kind}, not a tensor of real numbers", OURS)
    if value.is_meta and not parameter.is_meta:
        raise CheckpointError(f"{what} has a shape and no numbers", OURS)
    here, there = (getattr(t, "_local_tensor", t) for t in (value, parameter))
    whole = tuple(parameter.shape) if shape is None else shape
    if tuple(value.shape) != whole:
        raise CheckpointError(f"{what} has the shape {list(value.shape)}, and should have {list(whole)}", OURS)
    if shape is None and here.shape != there.shape:
        raise CheckpointError(
            f"{what} is sharded in another way than its parameter",
            "save and load sharded optimizers with torch.distributed.checkpoint",
        )
    value = value.detach()
    return (value if value.is_contiguous() else value.contiguous()).to(dtype)
