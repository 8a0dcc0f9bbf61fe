"""OnNullSpace: AdamW whose steps leave the outputs alone that calibration rows show."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from mergetool.activations.artifact import Calibration
from mergetool.errors import RecipeError
from mergetool.ops.projection import Factor, Rule, rule_of
from mergetool.ops.projector import Projector
from mergetool.optim.adamw import MergingAdamW, Params
from mergetool.optim.names import NO_NAMES, NamedParameters
from mergetool.optim.operators.null_space import project_flat_
from mergetool.optim.parts import AdamPart, Binding
from mergetool.optim.reference import adapter_name
from mergetool.optim.settings import Group
from mergetool.optim.sharding import local

_LORA = (".lora_A.weight", ".lora_embedding_A")
_LORA_OUT = (".lora_B.weight", ".lora_embedding_B")


class OnNullSpace(MergingAdamW):
    """AdamW whose updates lose what would change the outputs on calibration rows.

        θ ← (1 − η·λ)·θ + F_P(Δ),   Δ = −η·m̂/(√v̂ + ε)           K = 1
        θ ← D·a + F_P(θ' − D·a)      at every K-th step, AdamW between   K > 1

    F_P(Δ) = Δ·P with P of the second moment C of the inputs of each tensor: ``soft``: P = ℓ(C + ℓI)⁻¹, ℓ = strength·tr(C)/n;
    ``hard``: P = I − U_r U_rᵀ. θ' is the parameter after AdamW's own step, a (the anchor) the parameter after the last merge,
    D = Π(1 − η·λ) since then. With strength ∞ it is torch's AdamW, bit for bit; K = T is the offline ``null_space``.

    Of LoRA adapters A is projected, since the rows of A are what the inputs are multiplied with; where B is still zero, A
    itself is projected once, so that B·A = B·A·P throughout. A tensor that the calibration does not know keeps
    strength/(1 + strength) of its update (soft), or all of it (hard).

    Args:
        params: ``model.named_parameters()``, or groups of them; any setting may differ by group.
        lr, betas, eps, weight_decay: AdamW's; the decay is not projected.
        calibration: a Calibration, or the path of one, of the model that training starts from.
        kind, strength, threshold, energy, rank: which P; see `mergetool.ops.projection.Rule`.
        project: ``"update"``: Adam's update is projected; ``"gradient"``: the gradient is, in place, before Adam reads it
            (what NSPO's paper writes; its code does the former). Adam's quotient then brings some of it back.
        only, skip: parts of parameter names, with commas between them ("mlp,embed"): the tensors that are projected, and those
            that are not; all of them where None. A tensor that is not projected takes AdamW's own step.
        every: K, the steps from merge to merge.
        seed: of stochastic rounding.
        rounding, moments, compile, names: as in OnDARE.

    Raises:
        RecipeError: settings that cannot be carried out. CheckpointError: a calibration of another model.

    Source: NSPO, arXiv 2512.11391, for hard P and the gradient; docs/null-space.md.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-6,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        calibration: Calibration | str | Path,
        kind: Literal["soft", "hard"] = "soft",
        strength: float = 10.0,
        threshold: float | None = None,
        energy: float | None = None,
        rank: int | None = None,
        project: Literal["update", "gradient"] = "update",
        only: str | None = None,
        skip: str | None = None,
        every: int = 1,
        seed: int = 0,
        rounding: Literal["stochastic", "nearest"] = "stochastic",
        moments: Literal["float32", "parameter"] = "float32",
        compile: bool | None = None,
        names: NamedParameters | None = None,
    ) -> None:
        self.calibration = calibration if isinstance(calibration, Calibration) else Calibration.load(calibration)
        self._factors: dict[Any, dict[str, Factor | None]] = {}
        super().__init__(
            "null_space", params, None, names, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            kind=kind, strength=strength, threshold=threshold, energy=energy, rank=rank, project=project,
            only=only, skip=skip, every=every, seed=seed, rounding=rounding, moments=moments, compile=compile,
        )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"calibration": self.calibration}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._factors = {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does; the projectors are made anew, for a group's settings may have changed."""
        super().load_state_dict(state_dict)
        self._factors = {}

    @property
    def basis_bytes(self) -> int:
        """Memory of the projectors made so far, bytes."""
        return sum(one.nbytes for held in self._factors.values() for one in held.values() if one is not None)

    def _admit(self, group: Group, index: int) -> None:
        super()._admit(group, index)
        if "param_names" not in group:
            raise RecipeError("the parameters have no names, and a calibration is looked up by name", NO_NAMES)
        trained = [
            (name, tuple(p.shape))
            for name, p in zip(group["param_names"], group["params"], strict=True)
            if p.requires_grad and _chosen(name, group)
        ]
        places = [_place(name, shape, self.calibration) for name, shape in trained]
        self.calibration.check([place for place in places if place is not None], rule_of(group))

    def _look_up(self, binding: Binding, parameter: torch.Tensor, group: Group) -> Binding:
        """The binding with its projector."""
        if binding.projector is None:
            shape, extent = binding.shard.shape, binding.shard.extent
            if len(shape) > 1 and binding.shard.held and extent[1:] != shape[1:]:
                raise RecipeError(
                    f"parameter {binding.name} is cut within its rows", "shard it by rows, as FSDP2 does by itself"
                )
            if not _chosen(binding.name, group):
                binding.projector = Projector(shape)
            else:
                rule, device = rule_of(group), local(parameter).device
                held = self._factors.setdefault((rule, device), _OnDevice(device))
                binding.projector = _projector(binding.name, shape, self.calibration, rule, held)
        return binding

    def _part(self, p: torch.Tensor, group: dict[str, Any], position: int, index: int, step: int) -> AdamPart:
        first = not self.state[p]
        part = super()._part(p, group, position, index, step)
        self._look_up(part.binding, p, group)
        if first:
            self._start_adapter(part)
        return part

    def _start_adapter(self, part: AdamPart) -> None:
        """A ← A·P where B is zero: the model stays as it is, and B·A will never leave the null space."""
        partner = _partner(part.binding.name)
        if partner is None or rule_of(part.group).identity:
            return
        for other in self.param_groups:
            for name, q in zip(other["param_names"], other["params"], strict=True):
                if adapter_name(name) == partner and not local(q).any():
                    project_flat_(part.theta, part.binding)
                    if "anchor" in part.state:
                        part.anchor.copy_(part.theta)


class _OnDevice(dict[str, Factor | None]):
    """Factors by site, moved to a device as they come."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __setitem__(self, key: str, value: Factor | None) -> None:
        super().__setitem__(key, None if value is None else value.to(self._device))


def _chosen(name: str, group: Group) -> bool:
    """Whether a parameter is among those that the group projects."""
    only, skip = _parts(group["only"]), _parts(group["skip"])
    return (not only or any(part in name for part in only)) and not any(part in name for part in skip)


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _partner(name: str) -> str | None:
    """The name of B beside a LoRA adapter's A, as PEFT's files have it; None for other parameters."""
    name = adapter_name(name)
    for own, other in zip(_LORA, _LORA_OUT, strict=True):
        if name.endswith(own):
            return name.removesuffix(own) + other
    return None


def _place(name: str, shape: tuple[int, ...], calibration: Calibration) -> tuple[str, tuple[int, ...]] | None:
    """The calibrated tensor behind a parameter, and the shape to compare; None for LoRA's B.

    Of LoRA's A it is the tensor that the adapter sits on, and the inputs alone are compared.
    """
    short = adapter_name(name)
    if short.endswith(_LORA_OUT):
        return None
    if not short.endswith(_LORA):
        return name, shape
    base = next(short.removesuffix(one) for one in _LORA if short.endswith(one)) + ".weight"
    known = calibration.tensors.get(base)
    if known is None:
        return base, shape
    inputs = 0 if known.rows and (not known.columns or short.endswith(_LORA[1])) else 1
    return base, tuple(shape[1] if axis == inputs else size for axis, size in enumerate(known.shape))


def _projector(
    name: str, shape: tuple[int, ...], calibration: Calibration, rule: Rule, held: dict[str, Factor | None]
) -> Projector:
    place = _place(name, shape, calibration)
    if place is None:
        return Projector(shape)
    found = calibration.projector(*place, rule, held)
    if place[1] == shape and place[0] == name:
        return found
    if not found.columns[0] and not found.rows[0]:
        return Projector(shape, scale=found.scale)
    side = found.rows if adapter_name(name).endswith(_LORA[1]) or not found.columns[0] else found.columns
    return Projector(shape, side)
