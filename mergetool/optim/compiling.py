"""Whether and how torch.compile makes one pass over memory of an elementwise function."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from mergetool.errors import RecipeError
from mergetool.optim.kernels import moments_
from mergetool.optim.private_torch import to_dlpack

WORTH = 1 << 22
"""Entries of a group from which on compiling pays by itself: some seconds once, in place of milliseconds a step."""


def compiles(choice: bool | None, tensors: Iterable[torch.Tensor]) -> bool:
    """Whether a group's steps run compiled.

    Args:
        choice: True, False, or None for where it pays: on a CPU, from `WORTH` entries on, where a compiler is found.
        tensors: the group's parameters; of sharded ones the whole counts, so that all ranks decide alike.

    Raises:
        RecipeError: `choice` is True and torch.compile does not work on this machine.
    """
    if choice is False:
        return False
    tensors = list(tensors)
    if choice is None and (any(t.device.type != "cpu" for t in tensors) or sum(t.numel() for t in tensors) < WORTH):
        return False
    reason = _failure(tensors[0].device.type) if tensors else None
    if reason is None:
        return True
    if choice:
        raise RecipeError(f"compile=True, and torch.compile does not work here ({reason})", "drop it, or " + _REMEDY)
    _warn(reason)
    return False


_REMEDY = "install a C++ compiler (g++ or clang++) and Python's headers"


@lru_cache
def _warn(reason: str) -> None:
    warnings.warn(
        f"torch.compile does not work here ({reason}), so merging takes several times as long: {_REMEDY}, "
        "or say compile=False to hear no more of it",
        stacklevel=4,
    )


@lru_cache
def _failure(device: str) -> str | None:
    """Why torch.compile does not work on a device, None where it does: tried out on a few numbers."""
    try:
        a, b, c = (torch.zeros(64, device=device) for _ in range(3))
        compiled(moments_)(a, b, c, torch.zeros(3, device=device))
    except Exception as error:  # a toolchain can fail in any way
        return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
    return None


@lru_cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` by torch.compile, for any sizes; a first call with other types or flags takes some seconds."""
    # whether a loop is shared out to threads is decided by the size of the first tensor, once for all and for the compiler's
    # cache on disk too: a norm of 64 entries would make every later matrix single-threaded
    threads = {"cpp.min_chunk_size": 0}
    options: dict[str, Any] = {"dynamic": True, "fullgraph": True, "options": threads}
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        options["recompile_limit"] = 64  # types and flags: a process that merges in many ways has more than eight
    kernel = torch.compile(function, **options)

    def call(*arguments: Any) -> Any:
        # as tensors of their own: views are compiled for where they begin in what they are views of, and for which of them
        # begin alike, so a tensor's second part would take some seconds again
        return kernel(*(from_dlpack(to_dlpack(x)) if isinstance(x, torch.Tensor) else x for x in arguments))

    return call
