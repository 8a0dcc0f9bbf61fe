"""OnDARE, OnTIES and OnLinear: online merging around AdamW, at AdamW's price."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch

from mergetool.ops.noise import SPARSE_BELOW, stream_key
from mergetool.optim.deltas import AdamDelta
from mergetool.optim.merging import Binding, rounded_sum, scale_
from mergetool.optim.names import NamedParameters, attach
from mergetool.optim.online import Anyref, Merging, Method
from mergetool.optim.settings import DEFAULTS, check_adamw
from mergetool.optim.sharding import local
from mergetool.optim.step import adamw_, adamw_moments_, adamw_rounded_
from mergetool.optim.threads import each

_LOW = (torch.bfloat16, torch.float16)
Params = Any


class _MergingAdamW(Merging):
    """AdamW whose every K-th step is merged; the three public classes differ in `method` and defaults alone."""

    def __init__(self, method: Method, params: Params, reference: Anyref, names: NamedParameters | None, **given: Any) -> None:
        self._prepare(method, reference, names)
        super().__init__(params, DEFAULTS[method] | given)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does; the group's names and shapes are checked against the reference."""
        if self._names and isinstance(param_group, dict):
            params = param_group["params"]
            param_group["params"] = [params] if isinstance(params, torch.Tensor) else list(params)
            if not any(isinstance(p, tuple) for p in param_group["params"]):
                attach(param_group, self._names)
        super().add_param_group(param_group)
        group = self.param_groups.pop()
        check_adamw(group)
        self._admit(group)
        self.param_groups.append(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step: AdamW, and at every K-th the merge.

        Args:
            closure: reevaluates the model and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, index, held in self._moving():
            for _, p in held:
                self._ready(p, group)
                self.state[p]["step"] += 1
            # at K = 1 the merge reads Δθ straight from Adam's moments, and no plain step is made
            online = group["every"] == 1 and not self._unsparsified(group)
            if not online:
                self._plain_steps(held, group, index)
            self._merges(held, online, group, index)
        return loss

    def _unsparsified(self, group: dict[str, Any]) -> bool:
        """True where merging is AdamW's own step: everything is kept and nothing added (or it is added afterwards)."""
        return self.method == "linear" or (group["density"] >= 1.0 and not group["alpha"] and group["clip"] is None)

    def _ready(self, p: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            dtype = torch.float32 if group["moments"] == "float32" and p.dtype in _LOW else p.dtype
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(p, dtype=dtype)
            state["exp_avg_sq"] = torch.zeros_like(p, dtype=dtype)
        if group["every"] > 1 and "anchor" not in state and not self._unsparsified(group):
            state["anchor"] = p.detach().clone()
            if group["weight_decay"]:
                state["anchor_decay"] = torch.ones((), dtype=torch.float64)

    def _hyper(self, group: dict[str, Any]) -> dict[str, Any]:
        return {"betas": tuple(group["betas"]), "eps": group["eps"]}

    def _flat(self, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(gradient, m, v, t), flat, of this rank."""
        state = self.state[p]
        grad = getattr(p.grad, "_local_tensor", p.grad).detach().contiguous().view(-1)
        return grad, local(state["exp_avg"]), local(state["exp_avg_sq"]), state["step"]

    def _plain_steps(self, held: list[tuple[int, torch.Tensor]], group: dict[str, Any], index: int) -> None:
        """AdamW's step as torch makes it; in fp32 the very kernel and the very bits."""
        lr, decay = float(group["lr"]), group["weight_decay"]
        batches: dict[Any, list[torch.Tensor]] = {}
        for i, p in held:
            if not local(p).numel():
                continue
            state = self.state[p]
            if "anchor_decay" in state:
                state["anchor_decay"] *= 1 - lr * decay
            coarse = p.dtype in _LOW and (group["rounding"] == "stochastic" or state["exp_avg"].dtype != p.dtype)
            if coarse and lr:
                self._rounded_step(p, group, self._binding(p, group, i, index))
            elif coarse:
                grad, m, v, t = self._flat(p)
                adamw_moments_([grad], [m], [v], [t], **self._hyper(group))
            else:
                batches.setdefault((p.dtype, local(p).device), []).append(p)
        for batch in batches.values():
            grads, ms, vs, ts = zip(*[self._flat(p) for p in batch], strict=True)
            adamw_([local(p) for p in batch], grads, ms, vs, ts, lr=lr, weight_decay=decay, **self._hyper(group))

    def _rounded_step(self, p: torch.Tensor, group: dict[str, Any], binding: Binding) -> None:
        grad, m, v, t = self._flat(p)
        key = stream_key(group["seed"], int(t), "step", binding.name)

        def add(x: torch.Tensor, d: torch.Tensor, start: int) -> torch.Tensor:
            if group["rounding"] == "nearest":
                return x.float().add_(d).to(x.dtype)
            return rounded_sum(x, d, key, binding.shard, start)

        adamw_rounded_(
            local(p), grad, m, v, t, add,
            lr=float(group["lr"]), weight_decay=group["weight_decay"], **self._hyper(group),
        )  # fmt: skip

    def _online_moments(self, params: list[torch.Tensor], group: dict[str, Any]) -> None:
        batches: dict[Any, list[torch.Tensor]] = {}
        for p in params:
            if local(p).numel():
                batches.setdefault((self.state[p]["exp_avg"].dtype, local(p).device), []).append(p)
        for batch in batches.values():
            adamw_moments_(*zip(*[self._flat(p) for p in batch], strict=True), **self._hyper(group))

    def _merges(self, held: list[tuple[int, torch.Tensor]], online: bool, group: dict[str, Any], index: int) -> None:
        due = [(i, p) for i, p in held if self._merging_now(group, int(self.state[p]["step"]))]
        if online and not due:
            self._online_moments([p for _, p in held], group)
        if not due:
            return
        group["merges"] += 1
        group["merged_alpha"] += group["alpha"]
        if self._unsparsified(group) and self.method != "linear":
            return
        bound = [(p, self._binding(p, group, i, index)) for i, p in due]
        # sparse merges are too short to share out by blocks; collectives must keep their order
        if group["density"] >= SPARSE_BELOW or any(b.shard.groups or p.device.type != "cpu" for p, b in bound):
            if online:
                self._online_moments([p for p, _ in bound], group)
            for item in bound:
                self._merge_one(*item, online, group)
            return

        def work(item: tuple[torch.Tensor, Binding]) -> None:
            if online:  # by the same thread, so that one tensor's merge runs beside the next one's moments
                self._online_moments([item[0]], group)
            self._merge_one(*item, online, group)

        # a tensor that alone would keep a thread busy to the end is taken by all of them, block by block
        total = sum(p.numel() for p, _ in bound)
        large = [item for item in bound if 2 * item[0].numel() > total]
        for item in large:
            work(item)
        each(sorted((i for i in bound if 2 * i[0].numel() <= total), key=lambda item: -item[0].numel()), work)

    def _merge_one(self, p: torch.Tensor, binding: Binding, online: bool, group: dict[str, Any]) -> None:
        state, lr = self.state[p], float(group["lr"])
        step = int(state["step"])
        number = step // group["every"] - 1
        if online:
            theta, (_, m, v, _) = local(p), self._flat(p)
            self._decay(theta, 1 - lr * group["weight_decay"], group, step, binding)
            delta = AdamDelta(m, v, step, lr, tuple(group["betas"]), group["eps"])
            self._merge(p, None, 1.0, delta, number, group, binding)
        elif self.method == "linear":
            self._merge(p, None, 1.0, None, number, group, binding)
        else:
            decay = float(state.get("anchor_decay", 1.0))
            self._merge(p, local(state["anchor"]), decay, None, number, group, binding)
            state["anchor"].copy_(p)
            if "anchor_decay" in state:
                state["anchor_decay"].fill_(1.0)

    def _decay(self, theta: torch.Tensor, factor: float, group: dict[str, Any], step: int, binding: Binding) -> None:
        """θ ← (1 − η·λ)·θ, before the deltas are added, as torch's AdamW does."""
        if factor != 1.0:
            key = stream_key(group["seed"], step, "decay", binding.name) if group["rounding"] == "stochastic" else None
            scale_(theta, theta, factor, key, binding.shard)


class OnDARE(_MergingAdamW):
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
        names: NamedParameters | None = None,
    ) -> None:
        super().__init__(
            "dare", params, reference, names, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            density=density, alpha=alpha, alpha_total=alpha_total, total_steps=total_steps, every=every,
            rescale=rescale, tau_mask=tau_mask, clip=clip, seed=seed, rounding=rounding, moments=moments,
        )  # fmt: skip


class OnTIES(_MergingAdamW):
    """AdamW whose every K-th step is merged with the SFT delta by magnitude and sign.

        θ ← (1 − η·λ)·θ + [(1 − α)·F(Δ)] ⊕sign [α·F(τ_s)]

    F keeps the ⌊p·n⌋ largest entries of the tensor, ties by the lower index; a ⊕sign b is a + b where the signs
    agree, else the one of larger magnitude. Step-K, weight decay and all other arguments are as in OnDARE. With p = 1
    and α = 0 it is torch's AdamW.

    Args:
        params, lr, betas, eps, weight_decay, density, alpha, alpha_total, total_steps, every, clip, seed, reference,
            rounding, moments, names: as in OnDARE.
        rescale: ``"none"`` (the paper) or ``"l1"``.
        elect: the sign is elected on the weighted deltas (``"weighted"``, the paper) or on the bare ones
            (``"unweighted"``, the authors' code, where τ_s, far larger than one step, decides nearly every sign).

    Raises:
        RecipeError, CheckpointError: as OnDARE.

    Source: [OMO] Lu et al. 2024, arXiv 2405.17931, Eq. 5–7 and Algorithm 2.
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
        clip: float | None = None,
        seed: int = 0,
        reference: Anyref = None,
        rounding: Literal["stochastic", "nearest"] = "stochastic",
        moments: Literal["float32", "parameter"] = "float32",
        names: NamedParameters | None = None,
    ) -> None:
        super().__init__(
            "ties", params, reference, names, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            density=density, alpha=alpha, alpha_total=alpha_total, total_steps=total_steps, every=every,
            rescale=rescale, elect=elect, clip=clip, seed=seed, rounding=rounding, moments=moments,
        )  # fmt: skip


class OnLinear(_MergingAdamW):
    """AdamW with interpolation toward the SFT model at every K-th step: the online partner of ``linear``.

        θ ← (1 − α)·θ' + α·θ_s,   θ' being AdamW's own step from θ

    At K = T it is the offline interpolation (1 − α)·RLHF + α·SFT.

    Args:
        params, lr, betas, eps, weight_decay, alpha, alpha_total, total_steps, every, seed, rounding, moments, names:
            as in OnDARE.
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
        names: NamedParameters | None = None,
    ) -> None:
        super().__init__(
            "linear", params, reference, names, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            alpha=alpha, alpha_total=alpha_total, total_steps=total_steps, every=every,
            seed=seed, rounding=rounding, moments=moments,
        )  # fmt: skip
