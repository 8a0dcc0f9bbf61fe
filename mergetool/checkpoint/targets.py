"""Which tensors of a model an adapter changes: PEFT names the weights in memory, and a tied one gets a tensor of its own."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from mergetool.architecture.fused import Runs
from mergetool.architecture.layers import Stacks
from mergetool.architecture.reading import Reading, disk_name, live_name, reading_of
from mergetool.architecture.tying import stated
from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.layout import Layout
from mergetool.errors import CheckpointError

_HINT = "use the adapter's own base model"


class Targets:
    """The tensors of a model under an adapter.

    Args:
        base: the model's own layout.
        called: what messages call the adapter.

    Attributes:
        tensors: the base's, and those that the adapter tears from what they are tied to; these are read from the same bytes.
    """

    def __init__(self, base: Layout, called: str) -> None:
        self._base, self._called = base, called
        self.tensors: dict[str, TensorInfo] = dict(base.tensors)
        self._changed: list[str] = []

    @cached_property
    def _reading(self) -> Reading | None:
        return reading_of(self._base)

    def tensor(self, target: str, shape: tuple[int, ...], alone: bool = True) -> str:
        """The tensor that the weight `target` of the live model is.

        Args:
            target: the weight's name.
            shape: the shape that it must have.
            alone: what is tied to it stays as it was.

        Raises:
            CheckpointError: the model has no such weight, or one of another shape, or it is several tensors.
        """
        name = self.find(target)
        if name is None:
            raise CheckpointError(
                f"{self._called}: adapts '{target}', which is several tensors in {self._base.name}",
                "merge it with PEFT first: PeftModel.merge_and_unload()",
            )
        if (known := self.tensors[name].shape) != shape:
            raise CheckpointError(
                f"{self._called}: adapts '{target}' of shape {list(shape)}, but it is {list(known)} in {self._base.name}", _HINT
            )
        if alone:
            self._changed.append(name)
        return name

    def find(self, target: str) -> str | None:
        """The tensor of a weight; None where it is several of them.

        Raises:
            CheckpointError: the model has no such weight.
        """
        return target if target in self._base.tensors else self._found(target)

    def shape(self, target: str) -> tuple[int, ...]:
        """The shape of a weight of the live model.

        Raises:
            CheckpointError: the model has no such weight.
        """
        if (name := self.find(target)) is not None:
            return self.tensors[name].shape
        assert self._reading is not None  # it has found several tensors
        return self._reading.skeleton.shapes[live_name(self._reading.skeleton, target)]

    def runs(self, target: str) -> Runs:
        """Where the entries of a weight lie that is several tensors.

        Raises:
            CheckpointError: transformers computes it from these.
        """
        assert self._reading is not None  # only it knows of several tensors
        runs = self._reading.runs(live_name(self._reading.skeleton, target))
        assert runs is not None
        return runs

    def module(self, name: str) -> Any:
        """A module of the live model; None where transformers does not know the model, or it has none of that name."""
        if self._reading is None:
            return None
        try:
            return self._reading.skeleton.model.get_submodule(name)
        except AttributeError:
            return None

    def _found(self, target: str) -> str | None:
        reading = self._reading
        lacks = f"{self._called}: adapts '{target}', which {self._base.name} lacks"
        if reading is None:
            raise CheckpointError(lacks, _HINT)
        weight = live_name(reading.skeleton, target)
        stored = reading.stored(weight)
        if stored is None:
            if not reading.holds(weight):
                raise CheckpointError(lacks, _HINT)
            if target not in reading.skeleton.shapes:  # an expert of weights that are stored as one
                raise CheckpointError(
                    f"{self._called}: adapts '{target}', which is a part of '{weight}' in {self._base.name}",
                    "take the base with an expert a tensor: save_pretrained(..., save_original_format=True)",
                )
            return None
        if reading.live[stored] == weight:
            return stored
        own = disk_name(reading.skeleton, weight)
        self.tensors[own] = self._base.tensors[stored]
        return own

    def separate(self) -> None:
        """Give what is tied to a changed tensor its old values as a tensor of its own: PEFT changes the one alone."""
        stacks = Stacks(self._base.tensors)
        outside = [name for name in self._changed if stacks.place(name) is None]
        if not outside or stated(self._base.config) is False or self._reading is None:
            return
        skeleton = self._reading.skeleton
        changed = {live_name(skeleton, name) for name in outside}
        for weight in changed:
            for other in skeleton.group(weight):
                own = disk_name(skeleton, other)
                if other not in changed and own not in self.tensors and (stored := self._reading.stored(other)) is not None:
                    self.tensors[own] = self._base.tensors[stored]
