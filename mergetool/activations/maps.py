"""Which weight reads which input: found in a live forward pass, from the operations themselves.

Not from the names of modules or their classes: a router that calls `linear` on a bare parameter, GPT-2's transposed
weights and an expert cut out of a fused tensor are all maps, and each is seen where its weight is used. Norms are affine
in their gain g, whatever their formula, so that the input of a gain is y(g = 1) − y(g = 0).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

Role = Literal["columns", "rows", "tokens", "gain", "constant"]


class Use(NamedTuple):
    """A weight as it reads an input.

    Args:
        tensor: the parameter's name.
        expert: which matrix of a stack of them (a fused experts tensor); None for a parameter of one or two dimensions.
        role: ``columns``: of a weight stored (out, in); ``rows``: stored (in, out); ``tokens``: rows of an embedding;
            ``gain``: of a norm; ``constant``: a bias.
        x: the inputs: shape (…, n); token ids for ``tokens``; None for ``constant``.
    """

    tensor: str
    expert: int | None
    role: Role
    x: torch.Tensor | None


Listener = Callable[[Use], object]

# operation -> positions of (input, weight, bias), and whether the weight is (out, in)
_OPERATIONS: dict[Any, tuple[int, int, int | None, bool]] = {
    torch.nn.functional.linear: (0, 1, 2, True),
    torch.addmm: (1, 2, 0, False),
    torch.Tensor.addmm: (1, 2, 0, False),
    torch.baddbmm: (1, 2, 0, False),
    torch.matmul: (0, 1, None, False),
    torch.mm: (0, 1, None, False),
    torch.bmm: (0, 1, None, False),
    torch.Tensor.matmul: (0, 1, None, False),
    torch.Tensor.__matmul__: (0, 1, None, False),
    torch.Tensor.mm: (0, 1, None, False),
    torch.Tensor.bmm: (0, 1, None, False),
}
_NAMES = {"input": 0, "weight": 1, "bias": 2, "mat1": 1, "mat2": 2, "other": 1}


def place_of(tensor: torch.Tensor) -> tuple[int, int]:
    """(memory, byte) where a tensor starts; the second of neighbours in one memory is the larger."""
    if tensor.device.type == "meta":  # which has no addresses, but a storage object for each tensor that is no view
        return tensor.untyped_storage()._cdata, int(tensor.storage_offset()) * tensor.element_size()
    return 0, tensor.data_ptr()


class _Memory:
    """Which parameter a tensor is a part of, by where it lies."""

    def __init__(self, model: torch.nn.Module) -> None:
        held = sorted((place_of(p), name, p) for name, p in model.named_parameters() if p.numel())
        self._starts = [at for at, _, _ in held]
        self._held = [(name, p) for _, name, p in held]

    def find(self, tensor: Any) -> tuple[str, torch.Tensor, int] | None:
        """(name, parameter, the entry of it that `tensor` starts at)."""
        if not isinstance(tensor, torch.Tensor) or not tensor.numel():
            return None
        memory, byte = place_of(tensor)
        at = bisect_right(self._starts, (memory, byte)) - 1
        if at < 0 or self._starts[at][0] != memory:
            return None
        name, parameter = self._held[at]
        entry = (byte - self._starts[at][1]) // parameter.element_size()
        return (name, parameter, entry) if entry < parameter.numel() and tensor.device == parameter.device else None


class _Watch(TorchFunctionMode):
    def __init__(self, memory: _Memory, listener: Listener) -> None:
        super().__init__()
        self._memory, self._listener = memory, listener

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _OPERATIONS:
            for use in self._uses(func, args, kwargs):
                self._listener(use)
        elif func is torch.nn.functional.embedding:
            ids, weight = (args + tuple(kwargs[k] for k in ("input", "weight") if k in kwargs))[:2]
            if (found := self._memory.find(weight)) is not None:
                self._listener(Use(found[0], None, "tokens", ids))
        return func(*args, **kwargs)

    def _uses(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Use]:
        at_input, at_weight, at_bias, out_first = _OPERATIONS[func]
        given = dict(enumerate(args)) | {_NAMES[key]: value for key, value in kwargs.items() if key in _NAMES}
        x, weight = given.get(at_input), given.get(at_weight)
        found = self._memory.find(weight)
        if found is None or not isinstance(x, torch.Tensor) or weight is None or weight.dim() < 2:
            return
        name, parameter, entry = found
        axis = -1 if out_first else -2  # the inputs' dimension of the weight as the operation has it
        last = weight.stride(axis) == 1 or weight.shape[axis] == 1
        if parameter.dim() not in (2, 3) or weight.shape[axis] != parameter.shape[-1 if last else -2]:
            return
        role: Role = "columns" if last else "rows"
        if weight.dim() == 3:  # all experts in one product: x has their inputs one after the other
            for expert in range(weight.shape[0]):
                yield Use(name, expert, role, x[expert])
            return
        expert = None
        if parameter.dim() == 3:
            expert = entry // parameter.stride(0)
        yield Use(name, expert, role, x)
        if at_bias is not None and (bias := self._memory.find(given.get(at_bias))) is not None:
            yield Use(bias[0], None, "constant", None)


@contextmanager
def watching(model: Any, listener: Listener) -> Iterator[None]:
    """Tells `listener` of every use of a weight, in the order of the forward passes made inside.

    Experts run one by one meanwhile, as their modules' own code does it: the fused kernels hide which expert reads what.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    inside = False

    def gain(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        nonlocal inside
        weight = module._parameters["weight"]
        if inside or weight is None or id(weight) not in names or not isinstance(output, torch.Tensor):
            return
        inside = True  # the two passes below come here too
        try:
            one, zero = (
                torch.func.functional_call(module, {"weight": torch.full_like(weight, value)}, args, kwargs)
                for value in (1.0, 0.0)
            )
        finally:
            inside = False
        if one.shape[-1] != weight.numel():
            return
        listener(Use(names[id(weight)], None, "gain", one - zero))
        if isinstance(bias := getattr(module, "bias", None), torch.nn.Parameter):
            listener(Use(names[id(bias)], None, "constant", None))

    hooks = [
        module.register_forward_hook(gain, with_kwargs=True)
        for module in model.modules()
        if isinstance(weight := module._parameters.get("weight"), torch.nn.Parameter) and weight.dim() == 1
    ]
    before = model.get_experts_implementation() if _has_experts(model) else None
    if before is not None:
        model.set_experts_implementation("eager")
    try:
        with _Watch(_Memory(model), listener):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        if before is not None:
            model.set_experts_implementation(before)


def _has_experts(model: Any) -> bool:
    stacks = [p for p in model.parameters() if p.dim() == 3]
    # without values nobody can say which expert a token goes to, and the modules' own code asks
    return bool(stacks) and stacks[0].device.type != "meta" and hasattr(model, "set_experts_implementation")
