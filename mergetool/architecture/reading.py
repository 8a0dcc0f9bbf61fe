"""How transformers reads the tensors of one checkpoint: which weight each becomes, what it leaves, what it lacks."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Protocol

from mergetool.architecture.fused import Fused, Runs, assembled
from mergetool.architecture.layers import Stacks
from mergetool.architecture.skeleton import Skeleton, skeleton_of
from mergetool.architecture.tying import stated


class Header(Protocol):
    """A tensor's header."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        ...


class Checkpoint(Protocol):
    """As much of a checkpoint as its architecture can be read from."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """config.json."""
        ...

    @property
    def tensors(self) -> Mapping[str, Any]:
        """Name on disk -> `Header`."""
        ...


class Reading:
    """What transformers makes of a checkpoint's tensors.

    Args:
        skeleton: the class without weights.
        shapes: name on disk -> shape.

    Attributes:
        live: tensor on disk -> the weight in memory that it is, where one is the other.
        fused: weight -> what it is made of, where it is not one tensor.
        unneeded: tensors on disk that are no weight of the class: old buffers, layers for multi-token prediction.
    """

    def __init__(self, skeleton: Skeleton, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.skeleton = skeleton
        self.live: dict[str, str] = {}
        self.fused: dict[str, Fused] = {}
        names = _Names(skeleton)
        unneeded, collected = [], {}
        for name in sorted(shapes, key=names.order):
            weight, pattern = names.of(name)
            if weight not in skeleton.shapes:
                unneeded.append(name)
            elif pattern is None:
                self.live[name] = weight
            else:
                collected.setdefault((weight, pattern[0]), {}).setdefault(pattern[1], []).append((name, shapes[name]))
        for (weight, converter), sources in collected.items():
            first, targets = names.converters[converter].target_patterns[0], names.converters[converter].target_patterns
            for part, target in enumerate(targets):
                self.fused[weight.replace(first, target)] = Fused(names.converters[converter], sources, part)
        self.unneeded = frozenset(unneeded)
        self._disk = {weight: name for name, weight in self.live.items()}

    def stored(self, weight: str) -> str | None:
        """The tensor on disk that holds a weight, under its own name or one that it is tied to; None where none does."""
        return next((self._disk[name] for name in (weight, *self.skeleton.group(weight)) if name in self._disk), None)

    def stands_for(self, name: str) -> str | None:
        """The tensor of this checkpoint that is what another of its class calls `name` on disk; None where none is."""
        return self.stored(live_name(self.skeleton, name))

    def weight(self, name: str) -> str:
        """The weight in memory that a tensor on disk is, or is a part of."""
        return self.live.get(name) or next((w for w, fused in self.fused.items() if name in fused.names), name)

    def holds(self, weight: str) -> bool:
        """True where the weight is on disk, whole or in parts."""
        return self.stored(weight) is not None or any(name in self.fused for name in self.skeleton.group(weight))

    def may_lack(self, name: str) -> bool:
        """True where the class does without the tensor that another checkpoint calls `name`."""
        weight = live_name(self.skeleton, name)
        return any(re.search(pattern, weight) for pattern in self.skeleton.model._keys_to_ignore_on_load_missing or ())

    def runs(self, weight: str) -> Runs | None:
        """Where the entries of a weight lie on disk that is not one tensor there; None where it is, or is not there.

        Raises:
            CheckpointError: transformers computes it from the tensors on disk, and does not merely lay them together.
        """
        for name in self.skeleton.group(weight):
            if name in self.fused:
                return assembled(name, self.skeleton.shapes[name], self.fused[name])
        return None

    def copies(self) -> list[tuple[str, str, str]]:
        """(weight, its tensor, another tensor) where both tensors are on disk and one weight if their values are equal."""
        found = []
        for weight in self.skeleton.tied:
            others = [self._disk[name] for name in self.skeleton.group(weight) if name in self._disk and name != weight]
            if weight in self._disk and others:
                found.append((weight, self._disk[weight], others[0]))
        return found

    def missing(self) -> list[str]:
        """The weights that transformers would fill with random numbers, having found nothing on disk for them."""
        absent = [weight for weight in self.skeleton.shapes if not self.holds(weight)]
        patterns = self.skeleton.model._keys_to_ignore_on_load_missing or ()
        return [weight for weight in absent if not any(re.search(pattern, weight) for pattern in patterns)]


def reading_of(checkpoint: Checkpoint) -> Reading | None:
    """How transformers reads a checkpoint; None where it does not know the architecture."""
    skeleton = skeleton_of(checkpoint.config)
    return None if skeleton is None else Reading(skeleton, {n: tuple(t.shape) for n, t in checkpoint.tensors.items()})


def copies_of(checkpoint: Checkpoint) -> list[tuple[str, str, str]]:
    """`Reading.copies` of a checkpoint; transformers is asked only where something could be stored twice.

    That is: the configuration does not say that nothing is tied, and two matrices outside of the layers have one shape.
    """
    if stated(checkpoint.config) is False:
        return []
    stacks, seen = Stacks(checkpoint.tensors), set()
    for name, info in checkpoint.tensors.items():
        if len(info.shape) == 2 and stacks.place(name) is None:
            if tuple(info.shape) in seen:
                reading = reading_of(checkpoint)
                return [] if reading is None else reading.copies()
            seen.add(tuple(info.shape))
    return []


def live_name(skeleton: Skeleton, name: str) -> str:
    """The weight in memory that a tensor of this name on disk becomes, or is the first part of."""
    return _Names(skeleton).of(name)[0]


def disk_name(skeleton: Skeleton, weight: str) -> str:
    """What transformers calls a weight when it saves it; the weight's own name where it is not one tensor on disk."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import PrefixChange, WeightConverter, apply_renamings

    rules = [r for r in get_model_conversion_mapping(skeleton.model, add_legacy=False) if not isinstance(r, PrefixChange)]
    back = [rule.reverse_transform() for rule in rules[::-1] if not isinstance(rule, WeightConverter)]
    name = apply_renamings(weight, back)
    return name if live_name(skeleton, name) == weight else weight


class _Names:
    """transformers' renaming of one file's names. Its rules have state: make one for each file."""

    def __init__(self, skeleton: Skeleton) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            dot_natural_key,
            rename_source_key,
        )  # fmt: skip

        rules = get_model_conversion_mapping(skeleton.model)
        self.order, self._rename, self._skeleton = dot_natural_key, rename_source_key, skeleton
        self._renamings = [copy.copy(rule) for rule in rules if isinstance(rule, WeightRenaming)]
        self.converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self._by_pattern = {p: i for i, converter in enumerate(self.converters) for p in converter.source_patterns}
        self._weights = dict.fromkeys(skeleton.shapes, True)  # as much of a state dict as the renaming looks at

    def of(self, name: str) -> tuple[str, tuple[int, str] | None]:
        """(the weight, (converter, its pattern) where the tensor is not the weight itself)."""
        prefix = self._skeleton.model.base_model_prefix
        weight, pattern = self._rename(name, self._renamings, self.converters, prefix, self._weights)
        if weight not in self._weights and name in self._weights:
            weight, pattern = self._rename(name, [], [], base_model_prefix=prefix, meta_state_dict=self._weights)
        return weight, None if pattern is None else (self._by_pattern[pattern], pattern)
