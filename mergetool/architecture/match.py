"""THE check whether checkpoints match, and which tensor of each stands for which tensor of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mergetool.architecture.reading import Checkpoint, Reading, reading_of
from mergetool.errors import CheckpointError

HINT = "take checkpoints of one architecture and size"


@dataclass(frozen=True)
class Match:
    """How the tensors of several checkpoints belong together.

    Attributes:
        names: the tensors of a result: the base's, and behind them heads that only another checkpoint holds.
        stands_for: for each checkpoint, name -> its tensor of another name that holds the same weight.
        carried: tensors of the base that some checkpoint lacks and no loader needs.
        left_out: tensors that the base lacks and no loader needs -> the checkpoint that has them.
        added: those of `names` that the base holds under another name alone.
    """

    names: tuple[str, ...]
    stands_for: tuple[Mapping[str, str], ...]
    carried: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()

    def notes(self, base: str) -> list[str]:
        """What the result has of the base alone, and what it has not, a line each; empty where nothing was left."""
        lines = []
        if self.carried:
            lines.append(f"{_listed(self.carried)} of {base} carried over: no loader needs it, and another model lacks it")
        for owner in dict.fromkeys(self.left_out.values()):
            names = [name for name, whose in self.left_out.items() if whose == owner]
            lines.append(f"{_listed(names)} of {owner} left out: no loader needs it, and {base} lacks it")
        return lines


def match(checkpoints: Sequence[Checkpoint], base: int = 0) -> Match:
    """Find out whether checkpoints hold the same weights, in the same shapes, of one architecture.

    Where their files name the same tensors nothing need be known about the architecture. Where they do not,
    transformers says what a lacking tensor means: tied to another, called by another name, needed by no loader, or lost.

    Args:
        checkpoints: their configurations and headers.
        base: the one that the result is like.

    Raises:
        CheckpointError: they do not match; the message names both, the tensor, and what to do. The same two checkpoints
            get the same answer in either order.
    """
    pairs = _Pairs(checkpoints)
    reference = checkpoints[base]
    stands_for: list[dict[str, str]] = [{} for _ in checkpoints]
    carried: dict[str, None] = {}
    left_out: dict[str, str] = {}
    added: dict[str, None] = {}
    for i, checkpoint in enumerate(checkpoints):
        if checkpoint is reference:
            continue
        _same_type(checkpoint, reference)
        ours, theirs = reference.tensors, checkpoint.tensors
        for name in ours:
            if name in theirs:
                pairs.compare(i, name, base, name)
            elif (found := pairs.stand_in(base, i, name)) is not None:
                stands_for[i][name] = found
            else:
                carried[name] = None
        images = {stands_for[i].get(name, name) for name in ours}
        for name in [name for name in theirs if name not in ours]:
            found = pairs.stand_in(i, base, name)
            if found is None:
                left_out.setdefault(name, checkpoint.name)
            elif name not in images:
                added[name] = None
                stands_for[base][name] = found
        pairs.refuse(i, base)
    for name in added:
        owner = next(i for i, checkpoint in enumerate(checkpoints) if name in checkpoint.tensors)
        for i, checkpoint in enumerate(checkpoints):
            if name not in checkpoint.tensors and i != base:
                found = pairs.stand_in(owner, i, name)
                pairs.refuse(i, owner)
                assert found is not None  # it is a weight of the class
                stands_for[i][name] = found
    return Match((*reference.tensors, *added), tuple(stands_for), tuple(carried), left_out, tuple(added))


class _Pairs:
    """Comparisons between any two of the checkpoints; what does not match is collected, and refused in one line."""

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._checkpoints = checkpoints
        self._readings: dict[int, Reading | None] = {}
        self._lacking: dict[tuple[int, int], list[str]] = {}
        self._unlike: list[tuple[int, str, int, str]] = []

    def _reading(self, i: int) -> Reading | None:
        if i not in self._readings:
            self._readings[i] = reading_of(self._checkpoints[i])
        return self._readings[i]

    def compare(self, one: int, name: str, other: int, known: str) -> None:
        """Two tensors that hold the same weight have one shape."""
        if tuple(self._checkpoints[one].tensors[name].shape) != tuple(self._checkpoints[other].tensors[known].shape):
            self._unlike.append((one, name, other, known))

    def stand_in(self, having: int, lacking: int, name: str) -> str | None:
        """The tensor of one checkpoint that stands for `name`, which another has; None where none is, or none need be."""
        ours, theirs = self._reading(having), self._reading(lacking)
        if ours is None or theirs is None:
            self._lacking.setdefault((lacking, having), []).append(name)
            return None
        if name in ours.unneeded:
            return None
        if name in ours.live:
            if (found := theirs.stands_for(name)) is not None:
                self.compare(lacking, found, having, name)
                return found
            if theirs.may_lack(name):
                return None
        weight = ours.weight(name)
        if theirs.holds(weight):
            raise CheckpointError(
                f"{self._checkpoints[lacking].name}: has no tensor '{name}' as {self._checkpoints[having].name} has: "
                f"in one of the two '{weight}' is one tensor, in the other several",
                "load one with transformers and save it as the other is (save_pretrained with save_original_format)",
            )
        self._lacking.setdefault((lacking, having), []).append(name)
        return None

    def refuse(self, one: int, other: int) -> None:
        """Raise where something was found that does not match."""
        said, hint = [], HINT
        for lacking, having in ((one, other), (other, one)):
            if names := self._lacking.get((lacking, having)):
                lacks, has = self._checkpoints[lacking], self._checkpoints[having]
                said.append(f"{lacks.name}: lacks tensor '{names[0]}' ({len(names)} in all) that {has.name} has")
                if self._reading(having) is None or self._reading(lacking) is None:
                    kind = has.config.get("model_type")
                    hint = f"{HINT}; transformers cannot make a model of model_type {kind!r}, so all tensors count"
        if self._unlike:
            i, name, k, known = self._unlike[0]
            theirs, ours = self._checkpoints[i].tensors[name].shape, self._checkpoints[k].tensors[known].shape
            more = f" ({len(self._unlike)} tensors in all)" if len(self._unlike) > 1 else ""
            at = f"{self._checkpoints[i].name}: tensor '{name}' has shape {list(theirs)}, but {list(ours)}"
            said.append(f"{at} in {self._checkpoints[k].name}{more}")
            if tuple(ours[1:]) == tuple(theirs[1:]):
                hint += "; was the vocabulary extended?"
        if said:
            raise CheckpointError("; ".join(said), hint)


def _same_type(one: Checkpoint, reference: Checkpoint) -> None:
    ours, theirs = reference.config.get("model_type"), one.config.get("model_type")
    if ours != theirs:
        raise CheckpointError(f"{one.name}: model_type is {theirs!r}, but {ours!r} in {reference.name}", HINT)


def _listed(names: Sequence[str]) -> str:
    return f"'{names[0]}'" if len(names) == 1 else f"'{names[0]}' and {len(names) - 1} more tensors"
