"""OnDARE, OnTIES and OnLinear: online merging around AdamW, at AdamW's price."""

from __future__ import annotations

from typing import Literal

from mergetool.optim.adamw import MergingAdamW, Params
from mergetool.optim.base import Anyref
from mergetool.optim.names import NamedParameters


class OnDARE(MergingAdamW):
    """AdamW whose every K-th step is merged with the SFT delta by random sparsification.

        θ ← (1 − η·λ)·θ + (1 − α)·F(Δ) + α·F(τ_s),   Δ = −η·m̂/(√v̂ + ε)              K = 1
        θ ← D·a + (1 − α)·F(θ' − D·a) + α·F(τ_s)      at every K-th step, AdamW between   K > 1

    θ' is the parameter after AdamW's own step, a (the anchor) the parameter after the last merge, D = Π(1 − η·λ)
    since then; F keeps each entry with probability p. With p = 1 and α = 0 it is torch's AdamW, bit for bit; with
    α = 0 alone it is ChildTuning-F.

    Symbols: η `lr`, (β₁, β₂) `betas`, ε `eps`, λ `weight_decay`, p `density`, α `alpha`, K `every`, τ_s `reference`.

    Args:
        params: ``model.named_parameters()``, or groups of them; any setting may differ by group.
        lr: η.
        betas, eps: Adam's; ε > 0.
        weight_decay: λ, decoupled; applied to all of θ before the deltas are added, as torch does, and never
            sparsified.
        density: p in (0, 1], the fraction of entries kept.
        alpha: α in [0, 1], the weight of the SFT delta at each merge.
        alpha_total: the amount merged over the run, in place of `alpha`: α = alpha_total/⌊total_steps/K⌋.
        total_steps: T, read by `alpha_total` alone.
        every: K, the steps from merge to merge.
        rescale: survivors × 1/p (``"unbiased"``), × ‖x‖₁/‖F(x)‖₁ (``"l1"``), × 1 (``"none"``, the paper's text).
            At p = 5e-4 ``"none"`` moves a weight by η once in 2,000 steps.
        tau_mask: draw F(τ_s) anew at every merge (``"resample"``, the paper) or once (``"fixed"``, the authors' code).
        clip: the largest magnitude of a sparsified, rescaled entry; None for no limit (the authors' code has 1).
        seed: of the masks and of stochastic rounding.
        reference: mapping of parameter names to τ_s, or a Reference; None with α = 0.
        rounding: ``"stochastic"``: sums that θ's type cannot hold are rounded up or down at random so that nothing
            is lost in expectation: in bf16 and fp16 at every step, in fp32 at the entries a merge with α > 0 touches;
            ``"nearest"``: as torch does everywhere.
        moments: type of m and v for bf16 and fp16 parameters: ``"float32"``, or ``"parameter"`` as torch has it
            (half the memory, and v stops following the gradients).
        compile: whether torch.compile makes one pass over memory of a step. None: on a CPU, for groups of 4 million
            entries and more, where a C++ compiler is found; the first step then takes some seconds longer. The entries
            kept and the sums rounded up are the same either way.
        names: the model, or (name, parameter) pairs, where a trainer builds groups without names.

    Raises:
        RecipeError: settings that cannot be carried out. CheckpointError: a reference that does not fit.

    Source: [OMO] Lu et al. 2024, arXiv 2405.17931, Eq. 3–4 and Algorithm 2.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-6,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        density: float = 5e-4,
        alpha: float = 0.0,
        alpha_total: float | None = None,
        total_steps: int | None = None,
        every: int = 1,
        rescale: Literal["unbiased", "l1", "none"] = "unbiased",
        tau_mask: Literal["resample", "fixed"] = "resample",
        clip: float | None = None,
        seed: int = 0,
        reference: Anyref = None,
        rounding: Literal["stochastic", "nearest"] = "stochastic",
        moments: Literal["float32", "parameter"] = "float32",
        compile: bool | None = None,
        names: NamedParameters | None = None,
    ) -> None:
        super().__init__(
            "dare", params, reference, names, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            density=density, alpha=alpha, alpha_total=alpha_total, total_steps=total_steps, every=every,
            rescale=rescale, tau_mask=tau_mask, clip=clip, seed=seed, rounding=rounding, moments=moments,
            compile=compile,
        )  # fmt: skip


class OnTIES(MergingAdamW):
    """AdamW whose every K-th step is merged with the SFT delta by magnitude and sign.

        θ ← (1 − η·λ)·θ + [(1 − α)·F(Δ)] ⊕sign [α·F(τ_s)]

    F keeps the ⌊p·n⌋ largest entries of the tensor, ties by the lower index; a ⊕sign b is a + b where the signs
    agree, else the one of larger magnitude. Step-K, weight decay and all other arguments are as in OnDARE. With p = 1
    and α = 0 it is torch's AdamW.

    Args:
        params, lr, betas, eps, weight_decay, density, alpha, alpha_total, total_steps, every, clip, seed, reference,
            rounding, moments, compile, names: as in OnDARE.
        rescale: ``"none"`` (the paper) or ``"l1"``.
        elect: the sign is elected on the weighted deltas (``"weighted"``, the paper) or on the bare ones
            (``"unweighted"``, the authors' code, where τ_s, far larger than one step, decides nearly every sign).
        statistic: what F ranks the entries of Δ by: their own magnitude (``"delta"``) or that of Adam's m (``"momentum"``,
            which with α = 0 is MoFO; at K = 1 alone). τ_s is ranked by its own magnitude.

    Raises:
        RecipeError, CheckpointError: as OnDARE.

    Source: [OMO] Lu et al. 2024, arXiv 2405.17931, Eq. 5–7 and Algorithm 2; MoFO, Chen et al. 2024, arXiv 2407.20999.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-6,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        density: float = 5e-4,
        alpha: float = 0.0,
        alpha_total: float | None = None,
        total_steps: int | None = None,
        every: int = 1,
        rescale: Literal["l1", "none"] = "none",
        elect: Literal["weighted", "unweighted"] = "weighted",
        statistic: Literal["delta", "momentum"] = "delta",
        clip: float | None = None,
        seed: int = 0,
        reference: Anyref = None,
        rounding: Literal["stochastic", "nearest"] = "stochastic",
        moments: Literal["float32", "parameter"] = "float32",
        compile: bool | None = None,
        names: NamedParameters | None = None,
    ) -> None:
        super().__init__(
            "ties", params, reference, names, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            density=density, alpha=alpha, alpha_total=alpha_total, total_steps=total_steps, every=every,
            rescale=rescale, elect=elect, statistic=statistic, clip=clip, seed=seed, rounding=rounding, moments=moments,
            compile=compile,
        )  # fmt: skip


class OnLinear(MergingAdamW):
    """AdamW with interpolation toward the SFT model at every K-th step: the online partner of ``linear``.

        θ ← (1 − α)·θ' + α·θ_s,   θ' being AdamW's own step from θ

    At K = T it is the offline interpolation (1 − α)·RLHF + α·SFT.

    Args:
        params, lr, betas, eps, weight_decay, alpha, alpha_total, total_steps, every, seed, rounding, moments, compile,
            names: as in OnDARE.
        reference: mapping of parameter names to θ_s (not τ_s), ``Reference.from_checkpoints(None, sft)``, or a
            Reference of two checkpoints, of which the second is taken.

    Raises:
        RecipeError, CheckpointError: as OnDARE.

    Source: [OMO] Lu et al. 2024, arXiv 2405.17931, Eq. 1 with F the identity; Wortsman et al. 2021, arXiv 2109.01903.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-6,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        alpha: float = 0.0,
        alpha_total: float | None = None,
        total_steps: int | None = None,
        every: int = 1,
        seed: int = 0,
        reference: Anyref = None,
        rounding: Literal["stochastic", "nearest"] = "stochastic",
        moments: Literal["float32", "parameter"] = "float32",
        compile: bool | None = None,
        names: NamedParameters | None = None,
    ) -> None:
        super().__init__(
            "linear", params, reference, names, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            alpha=alpha, alpha_total=alpha_total, total_steps=total_steps, every=every,
            seed=seed, rounding=rounding, moments=moments,
            compile=compile,
        )  # fmt: skip
