"""The null-space operator F_P(Δ) = Δ·P: what of a delta is left where certain inputs must keep their outputs.

C = E[x xᵀ] is the second moment of the inputs x of a map W. A change Δ of W changes its outputs by E‖Δx‖² = tr(Δ C Δᵀ),
so P takes from each row of Δ what lies along the eigenvectors of C: all of it (``hard``) or the share e/(e + ℓ)
(``soft``). P is never formed. C is known by its top eigenpairs and its trace; the soft P takes what is left of the trace
as spread evenly over the other directions, each of which has t = (tr(C) − Σe)/(n − r) and loses t/(t + ℓ): without that a
small r would leave far more of Δ than C says, and `strength` would mean something else at every r.

    Δ·P = (1 − s₀)·Δ − (Δ B) Bᵀ,   B = U·diag(√(s − s₀)),   s the share that each eigenvector loses, s₀ all the others

A diagonal C (norm gains, rows of an embedding) loses its shares entry by entry.

Source: NSPO, arXiv 2512.11391 (hard); the soft P solves argmin_D ℓ‖D − Δ‖² + tr(D C Dᵀ).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

Kind = Literal["soft", "hard"]


class Moments(NamedTuple):
    """The second moment C of a map's inputs: its largest eigenvalues, or its diagonal.

    Args:
        values: e, descending, shape (r,); or the diagonal of C, shape (n,); fp32.
        vectors: U, orthonormal columns, shape (n, r), fp32; None where C is diagonal.
        trace: tr(C).
    """

    values: torch.Tensor
    vectors: torch.Tensor | None
    trace: float

    @property
    def size(self) -> int:
        """n, the number of inputs."""
        return self.values.numel() if self.vectors is None else self.vectors.shape[0]


@dataclass(frozen=True, slots=True)
class Rule:
    """Which P to make of a second moment.

    Args:
        kind: ``"soft"``: P = ℓ(C + ℓI)⁻¹, ℓ = strength·tr(C)/n; ``"hard"``: P = I − U_r U_rᵀ.
        strength: of soft; the larger, the more of Δ is left: ∞ leaves all of it.
        threshold: of hard: eigenvalues above threshold·e₁ are taken away.
        energy: of hard: the fewest that hold this share of tr(C).
        rank: of hard: so many.
    """

    kind: Kind = "soft"
    strength: float = 10.0
    threshold: float | None = None
    energy: float | None = None
    rank: int | None = None

    @property
    def identity(self) -> bool:
        """True where P = I: every delta stays as it is, bit for bit."""
        return self.kind == "soft" and math.isinf(self.strength)

    @property
    def left(self) -> float:
        """What is left of the delta of a tensor whose inputs are not known: of a constant input, the soft P; hard has none."""
        return self.strength / (1 + self.strength) if self.kind == "soft" and not self.identity else 1.0


def rule_of(values: Mapping[str, Any]) -> Rule:
    """The rule that options of these names ask for."""
    return Rule(values["kind"], values["strength"], values["threshold"], values["energy"], values["rank"])


def _soft(moments: Moments, rule: Rule) -> torch.Tensor:
    floor = rule.strength * moments.trace / moments.size
    values = moments.values.double().clamp(min=0)
    return (values / (values + floor)).float()


def _hard(moments: Moments, rule: Rule) -> torch.Tensor:
    # of equal entries of a diagonal the first ones
    order = torch.argsort(moments.values, descending=True, stable=True)
    values = moments.values.double()[order]
    taken = torch.zeros(values.numel())
    taken[order[: _taken(values, moments.trace, rule)]] = 1.0
    return taken


def _taken(values: torch.Tensor, trace: float, rule: Rule) -> int:
    """How many of the descending eigenvalues a hard rule takes away; `values` may end before the rule is content."""
    if rule.rank is not None:
        count = rule.rank
    elif rule.energy is not None:
        count = 1 + int(torch.searchsorted(torch.cumsum(values, 0), rule.energy * trace * (1 - 1e-9)))
    else:
        count = int((values > (rule.threshold or 0.0) * values[0]).sum())
    return min(count, int((values > 0).sum()))


_SHARES: dict[str, Callable[[Moments, Rule], torch.Tensor]] = {"soft": _soft, "hard": _hard}


def shares(moments: Moments, rule: Rule) -> torch.Tensor:
    """s: the share that a delta loses along each eigenvector (each entry of a diagonal); fp32, in [0, 1]."""
    if rule.identity or not moments.trace > 0:
        return torch.zeros(moments.values.numel())
    return _SHARES[rule.kind](moments, rule)


def spread(moments: Moments) -> float:
    """t: what C has along each direction whose eigenvector was not kept; 0 where that is less than fp32 eigenvalues can say."""
    others = moments.size - moments.values.numel()
    rest = moments.trace - float(moments.values.double().sum())
    return 0.0 if others == 0 or rest <= 1e-6 * moments.trace else rest / others


def tail(moments: Moments, rule: Rule) -> float:
    """s₀: the share that a delta loses along the directions whose eigenvectors were not kept."""
    if moments.vectors is None or rule.kind != "soft" or rule.identity or not moments.trace > 0:
        return 0.0
    each = spread(moments)
    return each / (each + rule.strength * moments.trace / moments.size) if each else 0.0


def covered(moments: Moments, rule: Rule) -> bool:
    """False where a hard rule would take away more eigenvectors than there are in `moments`."""
    if moments.vectors is None or rule.kind == "soft" or not moments.trace > 0:
        return True
    kept = moments.values.numel()
    if kept >= moments.size:
        return True
    if rule.rank is not None:
        return rule.rank <= kept
    values = moments.values.double()
    if rule.energy is not None:
        return float(values.sum()) >= rule.energy * moments.trace * (1 - 1e-6)
    return float(values[-1]) <= (rule.threshold or 0.0) * float(values[0])


class Factor(NamedTuple):
    """One side of P in the form that it is applied in; fp32.

    Args:
        low_rank: B, shape (n, r): P = left·I − B Bᵀ.
        diagonal: shape (n,): P = diag(diagonal).
        left: 1 − s₀.
    """

    low_rank: torch.Tensor | None = None
    diagonal: torch.Tensor | None = None
    left: float = 1.0

    @property
    def nbytes(self) -> int:
        """Memory, bytes."""
        return sum(x.nbytes for x in (self.low_rank, self.diagonal) if x is not None)

    def to(self, device: torch.device | str) -> Factor:
        """The same on a device."""
        low_rank, diagonal = (None if x is None else x.to(device) for x in (self.low_rank, self.diagonal))
        return Factor(low_rank, diagonal, self.left)


def factor(moments: Moments, rule: Rule) -> Factor | None:
    """P of one side; None where it is I."""
    lost, rest = shares(moments, rule), tail(moments, rule)
    if not bool(lost.any()) and not rest:
        return None
    if moments.vectors is None:
        return Factor(diagonal=1 - lost)
    lost = lost - rest
    some = lost > 0
    return Factor((moments.vectors[:, some] * lost[some].sqrt()).contiguous(), left=1 - rest)
