"""The maps of a model: which of them read the same input, and which sums there are to take."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from mergetool.activations.artifact import Site, Tensor
from mergetool.activations.maps import Role, Use, place_of, watching

RANK = 64
"""Eigenvectors kept of each map. Few are enough, since what is left of the trace counts too; see docs/results.md."""
GROUP_BYTES = 4 << 30
"""Sums that are held at a time; more of them take another pass over the rows."""


class Unit(NamedTuple):
    """What one sum is taken of: the inputs of one map, or of one expert of a stack of maps."""

    tensor: str
    role: Role
    expert: int | None
    size: int
    order: int

    @property
    def key(self) -> str:
        """The name of its moments."""
        return site_key(self.tensor, self.role, self.expert)

    @property
    def nbytes(self) -> int:
        """Of its sum."""
        return 8 * self.size * (self.size if self.role in ("columns", "rows") else 1)


def site_key(tensor: str, role: Role, expert: int | None) -> str:
    """`layer.weight`, with the role where the tensor has another one too, and the expert in brackets."""
    name = f"{tensor}:tokens" if role == "tokens" else tensor
    return name if expert is None else f"{name}[{expert}]"


@dataclass
class Survey:
    """The maps of a model: which sums there are, and which tensor reads which.

    Attributes:
        units: in the order of the forward pass.
        sides: tensor → role → the tensor whose sums it reads (its own, or those of one that reads the same input).
        constants: biases.
        shapes: of all parameters, by name.
        aliases: other names of tied parameters.
    """

    units: list[Unit] = field(default_factory=list)
    sides: dict[str, dict[Role, str]] = field(default_factory=dict)
    constants: list[str] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def groups(self, most: int = GROUP_BYTES) -> list[list[Unit]]:
        """The units, cut into runs whose sums take at most `most` bytes (a larger unit stands alone)."""
        found: list[list[Unit]] = []
        room = 0
        for unit in self.units:
            if not found or unit.nbytes > room:
                found.append([])
                room = most
            found[-1].append(unit)
            room -= unit.nbytes
        return found

    def peak_bytes(self, rank: int = RANK, most: int = GROUP_BYTES) -> int:
        """What calibrating takes beside the model at most: the sums of one group, and the eigenpairs that they become."""
        return max(sum(u.nbytes + 4 * (u.size + 1) * min(rank, u.size) for u in group) for group in self.groups(most))


def survey(model: Any, ids: Sequence[int]) -> Survey:
    """The maps of a live model, seen in one pass over a few tokens."""
    found = Survey(shapes={name: tuple(p.shape) for name, p in model.named_parameters()})
    first = {id(p): name for name, p in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    found.aliases = {name: first[id(p)] for name, p in every if first[id(p)] != name}
    sharing = Sharing(found)
    with torch.no_grad(), watching(model, sharing.admit):
        # with its cache: without, transformers looks at the values of positions, and a model on `meta` has none
        model(input_ids=torch.tensor([list(ids)], device=next(model.parameters()).device))
    return found


def first_tokens(sequences: Sequence[Sequence[int]], most: int = 32) -> Sequence[int]:
    """What a survey reads: the first tokens of the longest row."""
    return max(sequences, key=len)[:most]


class Sharing:
    """Gives each use its unit; a map that reads the very tensor that another one read shares that one's."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self._read: dict[Any, tuple[Any, str]] = {}
        self._orders = {(unit.tensor, unit.role): unit.order for unit in survey.units}
        self._surveying, self._last = not survey.units, 0

    def admit(self, use: Use) -> Unit | None:
        """The unit that the use adds to; None where another map has added the same input, or there is none to add."""
        if use.role == "constant":
            if use.tensor not in self.survey.constants:
                self.survey.constants.append(use.tensor)
            return None
        x = use.x
        assert x is not None
        sides = self.survey.sides.setdefault(use.tensor, {})
        key = (place_of(x), x.numel(), x.shape[-1] if x.dim() else 0)
        if use.role not in sides:
            reader = self._reader(key, x) if use.role in ("columns", "rows") else None
            sides[use.role] = reader or use.tensor
            if reader is None:
                self._add_units(use)
        if use.role in ("columns", "rows"):
            self._read[key] = (weakref.ref(x), sides[use.role])
        if sides[use.role] != use.tensor:
            return None
        self._last = self._orders[use.tensor, use.role]
        size = self.survey.shapes[use.tensor][-2 if use.role in ("rows", "tokens") else -1]
        return Unit(use.tensor, use.role, use.expert, size, self._last)

    def _reader(self, key: Any, x: torch.Tensor) -> str | None:
        there, tensor = self._read.get(key, (None, ""))
        return tensor if there is not None and there() is not None else None  # else its memory was given to another one

    def _add_units(self, use: Use) -> None:
        shape = self.survey.shapes[use.tensor]
        # a map that the survey's tokens were not sent to (an expert) stands where the one before it does
        order = self._orders[use.tensor, use.role] = len(self._orders) if self._surveying else self._last
        size = shape[-2 if use.role in ("rows", "tokens") else -1]
        experts = range(shape[0]) if len(shape) == 3 else [None]
        self.survey.units += [Unit(use.tensor, use.role, expert, size, order) for expert in experts]


def tensors_of(maps: Survey, sites: Mapping[str, Site]) -> dict[str, Tensor]:
    """Which of the sites belong to which parameter, under each of its names."""
    found = {}
    for name, shape in maps.shapes.items():
        keys: dict[Role, tuple[str | None, ...]] = {}
        for role, reader in maps.sides.get(name, {}).items():
            experts = range(shape[0]) if len(shape) == 3 else [None]
            keys[role] = tuple(key if (key := site_key(reader, role, e)) in sites else None for e in experts)
        columns, rows = keys.get("columns", keys.get("gain", ())), keys.get("rows", keys.get("tokens", ()))
        found[name] = Tensor(shape, columns if any(columns) else (), rows if any(rows) else (), name in maps.constants)
    return found | {name: found[first] for name, first in maps.aliases.items()}
