"""The saved state of AdamW that OnDARE, OnTIES and OnLinear continue from: their own, or torch's."""

from __future__ import annotations

from typing import Any

import torch

from mergetool.errors import CheckpointError
from mergetool.optim.loading import OURS, count_of, entries_of, number_of
from mergetool.optim.namespace import PREFIX
from mergetool.optim.rounded import COARSE

_NEEDED = frozenset(["step", "exp_avg", "exp_avg_sq"])
_OPTIONAL = frozenset(["anchor", "anchor_decay", "merge_step"])
_TORCHS = frozenset(["amsgrad", "maximize", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"])


def moment_type(parameter: torch.dtype, moments: str) -> torch.dtype:
    """What m and v are kept in, for a parameter's type and the setting `moments`."""
    return torch.float32 if moments == "float32" and parameter in COARSE else parameter


def adamw_settings(saved: dict[str, Any]) -> dict[str, Any]:
    """A saved group's settings: our own as they are, those of torch's AdamW (or Adam without a decay) with no merges yet.

    Raises:
        CheckpointError: another optimizer's, or what ours cannot do.
    """
    if "moments" in saved:
        return saved
    if "merges" in saved or any(key.startswith(PREFIX) for key in saved):
        raise CheckpointError(
            "the state is OnlineMerge's", "load it into OnlineMerge around the optimizer that it was saved with"
        )
    coupled = not saved.get("decoupled_weight_decay", True) and saved.get("weight_decay")
    rectified = "decoupled_weight_decay" in saved and "amsgrad" not in saved
    other = [
        *(f"no {key}" for key in ("lr", "betas", "eps", "weight_decay") if key not in saved),
        *(f"{key}=True" for key in ("amsgrad", "maximize") if saved.get(key)),
        *(["a weight decay that is not decoupled"] if coupled else ["RAdam's steps"] if rectified else []),
    ]
    if other:
        raise CheckpointError(f"the state is not AdamW's: it has {other[0]}", "load AdamW's, or this optimizer's own")
    kept = {key: value for key, value in saved.items() if key not in _TORCHS}
    return kept | {"merges": 0, "merged_alpha": 0.0}


def adamw_state(state: dict[str, Any], parameter: torch.Tensor, moments: str, name: str) -> dict[str, Any]:
    """A parameter's saved state in the types that a step takes.

    Args:
        state: as saved; empty where the parameter has made no step.
        parameter: whose it is.
        moments: the group's setting.
        name: the parameter's.

    Raises:
        CheckpointError: something is missing, of another shape, or no number.
    """
    if not state:
        return {}
    lacking, over = sorted(_NEEDED - set(state)), sorted(map(str, set(state) - _NEEDED - _OPTIONAL))
    if lacking or over:
        what = f"has no {lacking[0]}" if lacking else f"has {over[0]}, which AdamW has not"
        raise CheckpointError(f"the state of {name} {what}", "load AdamW's, or this optimizer's own")
    kept: dict[str, Any] = {}
    for key, value in state.items():
        what = f"{key} of {name}"
        if key in ("step", "merge_step"):
            kept[key] = count_of(value, what)
        elif key == "anchor_decay":
            kept[key] = torch.tensor(number_of(value, what), dtype=torch.float64)
        else:
            kept[key] = entries_of(
                value, parameter, parameter.dtype if key == "anchor" else moment_type(parameter.dtype, moments), what
            )
    if "merge_step" in kept and kept["merge_step"] < kept["step"]:
        raise CheckpointError(f"merge_step of {name} is {int(kept['merge_step'])}, below its {int(kept['step'])} steps", OURS)
    return kept
