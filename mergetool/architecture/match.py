"""THE check whether checkpoints match, and which tensor of each stands for which tensor of the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    reference = checkpoints[base]
    readings: dict[int, Reading | None] = {}

    def reading(i: int) -> Reading | None:
        if i not in readings:
            readings[i] = reading_of(checkpoints[i])
        return readings[i]

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
                _same_shape(checkpoint, name, reference, name)
        for name in [name for name in ours if name not in theirs]:
            found = _stand_in(checkpoints, reading, base, i, name)
            if found is None:
                carried[name] = None
            else:
                stands_for[i][name] = found
        images = {stands_for[i].get(name, name) for name in ours}
        for name in [name for name in theirs if name not in ours]:
            found = _stand_in(checkpoints, reading, i, base, name)
            if found is None:
                left_out.setdefault(name, checkpoint.name)
            elif name not in images:
                added[name] = None
                stands_for[base][name] = found
    for i in range(len(checkpoints)) if added else ():
        for name in added:
            if name not in checkpoints[i].tensors and name not in stands_for[i]:
                owner = next(k for k, other in enumerate(checkpoints) if name in other.tensors)
                found = _stand_in(checkpoints, reading, owner, i, name)
                assert found is not None  # the base has a stand-in for it, so it is a weight of the class
                stands_for[i][name] = found
    names = (*reference.tensors, *added)
    return Match(names, tuple(stands_for), tuple(carried), left_out, tuple(added))


def _stand_in(
    checkpoints: Sequence[Checkpoint], reading: Callable[[int], Reading | None], having: int, lacking: int, name: str
) -> str | None:
    """The tensor of one checkpoint that stands for `name`, which another has; None where no loader needs it."""
    has, lacks = checkpoints[having], checkpoints[lacking]
    ours, theirs = reading(having), reading(lacking)
    if ours is not None and theirs is not None:
        if name in ours.unneeded:
            return None
        if name in ours.live:
            if (found := theirs.stands_for(name)) is not None:
                _same_shape(lacks, found, has, name)
                return found
            if theirs.may_lack(name):
                return None
        weight = ours.weight(name)
        if theirs.holds(weight):
            raise CheckpointError(
                f"{lacks.name}: has no tensor '{name}' of its own, as {has.name} has: one of the two holds its experts "
                f"fused as '{weight}', the other one a tensor each",
                "load one with transformers and save it in the other's layout (save_pretrained with save_original_format)",
            )
    count = len(set(has.tensors) - set(lacks.tensors))
    unknown = ours is None or theirs is None
    kind = has.config.get("model_type")
    hint = f"{HINT}; whether it can be done without is not known: transformers has no model_type {kind!r} that could be made"
    raise CheckpointError(
        f"{lacks.name}: lacks tensor '{name}' ({count} in all) that {has.name} has", hint if unknown else HINT
    )


def _same_type(one: Checkpoint, reference: Checkpoint) -> None:
    ours, theirs = reference.config.get("model_type"), one.config.get("model_type")
    if ours != theirs:
        raise CheckpointError(f"{one.name}: model_type is {theirs!r}, but {ours!r} in {reference.name}", HINT)


def _same_shape(one: Checkpoint, name: str, reference: Checkpoint, known: str) -> None:
    ours, theirs = reference.tensors[known].shape, one.tensors[name].shape
    if tuple(ours) != tuple(theirs):
        raise CheckpointError(
            f"{one.name}: tensor '{name}' has shape {list(theirs)}, but {list(ours)} in {reference.name}",
            f"{HINT}; was the vocabulary extended?" if ours[1:] == theirs[1:] else HINT,
        )


def _listed(names: Sequence[str]) -> str:
    return f"'{names[0]}'" if len(names) == 1 else f"'{names[0]}' and {len(names) - 1} more tensors"
