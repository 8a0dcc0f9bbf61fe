"""Parts of a model with a ratio of their own: which tensors belong to which part, and how a merge recipe says it.

Part-wise averaging [AMA, arXiv 2309.06256, Section 4] splits the layers into consecutive parts and gives each its own
share of SFT and RLHF. In a recipe that is mergekit's own list form, one value a layer, and a filter for each tensor
outside the layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mergetool.architecture.layers import Stacks
from mergetool.architecture.match import match
from mergetool.architecture.roles import ROLES, depth_of, roles_of
from mergetool.checkpoint.layout import Layout
from mergetool.errors import CheckpointError, RecipeError

Place = Literal["block", "average", "sft", "rlhf"]
PLACES: tuple[Place, ...] = ("block", "average", "sft", "rlhf")


@dataclass(frozen=True)
class Parts:
    """Which part each tensor belongs to.

    Attributes:
        count: parts.
        layers: the part of each layer, in the order of the layers; never falls.
        outside: tensor outside of the layers -> its part, or "average", "sft" or "rlhf".
        stacks: which layer a tensor is in.
    """

    count: int
    layers: tuple[int, ...]
    outside: Mapping[str, int | str] = field(repr=False)
    stacks: Stacks = field(repr=False, compare=False)

    def of(self, tensor: str) -> int | str:
        """The part of one tensor, or the fixed place that the recipe gave it."""
        if tensor in self.outside:
            return self.outside[tensor]
        place = self.stacks.place(tensor)
        assert place is not None  # `parts_of` has seen every tensor
        return self.layers[min(place.layer, len(self.layers) - 1)]  # a layer behind the last goes with it

    def share(self, tensor: str, shares: Sequence[float], average: float) -> float:
        """The share of SFT in one tensor, where part k has `shares[k]`."""
        at = self.of(tensor)
        return shares[at] if isinstance(at, int) else {"average": average, "sft": 1.0, "rlhf": 0.0}[at]

    def setting(self, shares: Sequence[float], average: float) -> list[Any]:
        """A parameter of a merge recipe that has the value `shares[k]` in part k.

        Args:
            shares: one value a part.
            average: the value of tensors placed at "average"; "sft" has 1 and "rlhf" 0.

        Returns:
            One condition for each tensor outside of the layers, and a list of one value a layer for the rest. mergekit
            reads such a list over the depth, so that layer i of n gets the i-th of n values.
        """
        conditions = [{"filter": name, "value": self.share(name, shares, average)} for name in self.outside]
        return [*conditions, {"value": [shares[part] for part in self.layers]}]


def parts_of(
    layout: Layout,
    blocks: int | Literal["layers"],
    places: Mapping[str, Place] | None = None,
    beside: Layout | None = None,
) -> Parts:
    """Splits a model.

    Args:
        layout: its headers.
        blocks: how many parts of consecutive layers, as equal as they can be (the earlier ones are the larger); or
            one for each layer.
        places: of embeddings, final_norm, lm_head. "block": the embeddings belong to the first part, the final norm
            and the head to the last; "average", "sft" or "rlhf": they have that share. A head that is tied to the
            embeddings goes with them.
        beside: the checkpoint it is averaged with; a head that only this one holds apart from its embeddings has a
            place too, for the average holds it.

    Raises:
        RecipeError: more parts than layers.
        CheckpointError: the model has no stack of layers, or more than one, or is of an architecture that transformers
            does not know; or the two do not match.
    """
    stacks = depth_of(layout)
    if len(stacks.depth) != 1:
        found = ", ".join(sorted(stacks.depth)) or "none"
        raise CheckpointError(
            f"{layout.name}: part-wise ratios need one stack of layers, found {found}", "merge it with one weight"
        )
    depth = next(iter(stacks.depth.values()))
    count = depth if blocks == "layers" else int(blocks)
    if not 1 <= count <= depth:
        raise RecipeError(f"{count} parts of a model with {depth} layers", f"give 1 to {depth}, or `layers`")
    small, larger = divmod(depth, count)
    layers = tuple(part for part in range(count) for _ in range(small + (part < larger)))
    ends = {"embeddings": 0, "final_norm": count - 1, "lm_head": count - 1}
    asked = {role: (places or {}).get(role, "block") for role in ROLES}
    roles = roles_of(layout)
    if beside is not None and (found := match([layout, beside])).added:
        of_beside = roles_of(beside)
        roles |= {name: of_beside[found.stands_for[1].get(name, name)] for name in found.added}
    outside = {name: ends[role] if asked[role] == "block" else asked[role] for name, role in roles.items()}
    return Parts(count, layers, outside, stacks)


def complement(setting: list[Any]) -> list[Any]:
    """1 − v for every value of what `Parts.setting` gave: the other model's share."""
    return [
        {**entry, "value": [1 - v for v in entry["value"]] if isinstance(entry["value"], list) else 1 - entry["value"]}
        for entry in setting
    ]
