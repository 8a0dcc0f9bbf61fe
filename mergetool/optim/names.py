"""Parameter names: from an optimizer's groups to the names a checkpoint stores.

Random streams and references go by name, so a name must be the same whatever wraps the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, cast

import torch

from mergetool.errors import RecipeError

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")

NamedParameters = torch.nn.Module | Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]]

NO_NAMES = (
    "give the optimizer model.named_parameters(), or names=model where a trainer builds the groups "
    "(a backend that flattens parameters, as DeepSpeed ZeRO does, has lost the names and cannot be served: use FSDP2)"
)


def canonical(name: str) -> str:
    """`name` without the prefixes that DDP, FSDP, torch.compile and activation checkpointing add.

    ``module.`` is dropped at the front alone: a model may have a child of that name.
    """
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while len(parts) > 1 and parts[0] == "module":
        parts.pop(0)
    return ".".join(parts)


def named(source: NamedParameters) -> dict[int, str]:
    """id of the parameter → canonical name."""
    if isinstance(source, torch.nn.Module):
        pairs = list(source.named_parameters())
    elif isinstance(source, Mapping):
        pairs = list(cast("Mapping[str, torch.Tensor]", source).items())
    else:
        pairs = list(source)
    return {id(parameter): canonical(name) for name, parameter in pairs}


def attach(group: MutableMapping[str, Any], names: dict[int, str]) -> None:
    """Write the names of `group`'s parameters into it, as torch does for ``named_parameters()``.

    Raises:
        RecipeError: a parameter is not among `names`.
    """
    if "param_names" in group:
        return
    found = [names.get(id(parameter)) for parameter in group["params"]]
    if None in found:
        raise RecipeError(
            f"{found.count(None)} of {len(found)} parameters in a group are not among the `names` given", NO_NAMES
        )
    group["param_names"] = found


def name_of(group: Mapping[str, Any], position: int, group_index: int) -> str:
    """The canonical name of a group's parameter; its place where names are missing (then streams go by place)."""
    if "param_names" in group:
        return canonical(group["param_names"][position])
    return f"{group_index}.{position}"
