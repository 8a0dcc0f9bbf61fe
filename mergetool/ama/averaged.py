"""One live model whose weights are a part-wise average of two checkpoints, and what its loss says about the ratios.

dL/dalpha_k is the sum over block k of <dL/dtheta, theta_s − theta_p>. Each gradient is reduced to that one number as soon as
autograd has made it, and freed: a learned ratio costs the largest parameter's gradient in memory, not the model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mergetool.architecture.match import HINT
from mergetool.checkpoint.weights import InFiles
from mergetool.errors import CheckpointError
from mergetool.ops.blocks import BLOCK, spans
from mergetool.ops.consensus.linear import blend

if TYPE_CHECKING:
    import torch

    from mergetool.checkpoint.reader import Reader
    from mergetool.merge.parts import Parts


class AveragedModel:
    """theta = alpha_k · theta_s + (1 − alpha_k) · theta_p in block k, in the parameters of a live model.

    Args:
        model: a causal language model of that architecture; its weights are overwritten.
        sft, rlhf: readers of the two checkpoints; they stay mapped.
        parts: which tensor belongs to which block.

    Raises:
        CheckpointError: the model has a parameter that the checkpoints do not hold in its shape.
    """

    def __init__(self, model: Any, sft: Reader, rlhf: Reader, parts: Parts) -> None:
        import torch

        self.model, self.parts = model, parts
        self._sides = tuple(InFiles(reader.layout, reader=reader) for reader in (sft, rlhf))
        self._names: dict[str, list[str]] = {}
        self._parameters: dict[str, torch.Tensor] = {}
        twins = _untied(model)
        named: list[tuple[str, torch.Tensor]] = list(model.named_parameters())
        for name, parameter in named:
            if name in twins:
                if all(
                    side.find(name) in (None, first) for side, first in zip(self._sides, self._names[twins[name]], strict=True)
                ):
                    continue  # the same memory as its first name's
                del twins[name]  # one checkpoint holds it apart, so the average does
                parameter.data = parameter.detach().clone()
            for side in self._sides:
                found = side.find(name)
                if found is None or (shape := side.shape(found)) != tuple(parameter.shape):
                    what = "no tensor" if found is None else f"shape {list(shape)}, the model {list(parameter.shape)}, in"
                    raise CheckpointError(f"{side.layout.name}: {what} '{name}'", HINT)
                self._names.setdefault(name, []).append(found)
            self._parameters[name] = parameter
        self._uses = [(twins.get(name, name), parameter) for name, parameter in named]
        for name, parameter in self._uses:
            parameter.requires_grad_(isinstance(parts.of(name), int))
        device = next(model.parameters()).device
        self._buffers = [torch.empty(BLOCK, device=device) for _ in range(3)]

    def put(self, shares: Sequence[float], average: float) -> None:
        """Overwrites every parameter: block k has share `shares[k]` of SFT, what is placed at the average `average`."""
        import torch

        with torch.no_grad():
            for name, parameter in self._parameters.items():
                share = self.parts.share(name, shares, average)
                flat = parameter.view(-1)
                for start, stop in spans(parameter.numel()):
                    sft, rlhf = self._blocks(name, start, stop)
                    flat[start:stop].copy_(blend([sft, rlhf], [share, 1 - share], self._buffers[2][: stop - start]))

    def _blocks(self, name: str, start: int, stop: int) -> list[torch.Tensor]:
        return [
            held[: stop - start].copy_(side.part(found, start, stop))
            for held, side, found in zip(self._buffers, self._sides, self._names[name], strict=False)
        ]

    @contextmanager
    def gradients(self) -> Iterator[list[float]]:
        """Within it, `backward` adds dL/dalpha_k to the list that is yielded, and no parameter keeps a gradient."""
        found = [0.0] * self.parts.count
        hooks = [
            parameter.register_post_accumulate_grad_hook(self._reducer(part, name, found))
            for name, parameter in self._uses
            if isinstance(part := self.parts.of(name), int)
        ]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()
            self.model.zero_grad(set_to_none=True)  # an interrupted backward may have left some

    def _reducer(self, part: int, name: str, found: list[float]) -> Any:
        def reduce(parameter: torch.Tensor) -> None:
            import torch

            assert parameter.grad is not None  # the hook's meaning
            gradient = parameter.grad.view(-1)
            total = 0.0
            for start, stop in spans(parameter.numel()):
                sft, rlhf = self._blocks(name, start, stop)
                total += float(torch.dot(self._buffers[2][: stop - start].copy_(gradient[start:stop]), sft.sub_(rlhf)))
            found[part] += total
            parameter.grad = None

        return reduce


def _untied(model: Any) -> dict[str, str]:
    """Makes the uses of a tied weight leaves of their own, over the same memory; name of a use -> first name.

    A leaf's gradient is there when its last use has given its part: the head's would wait through the whole backward pass for
    the embedding's, and their sum would be a third tensor of that size. Two leaves are reduced and freed one after the other.
    """
    import torch

    first: dict[int, str] = {}
    twins: dict[str, str] = {}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if id(parameter) in first:
            twins[name] = first[id(parameter)]
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, torch.nn.Parameter(parameter.detach()))
        first.setdefault(id(parameter), name)
    return twins
