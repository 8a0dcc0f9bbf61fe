"""An independent plain reference: the paper's equations on whole dense tensors in fp64, and none of our optimizer code.

Only the random decisions are shared (mergetool.ops.masks), since the theorems are about the same entries.
"""

from __future__ import annotations

import numpy as np
import torch

from mergetool.ops import masks, noise


def random_kept(x: torch.Tensor, density: float, seed: int, number: int, role: str, name: str) -> torch.Tensor:
    """The mask of the random sparsifier as 0/1 of x's shape."""
    if density >= 1:
        return torch.ones_like(x)
    key = noise.stream_key(seed, number, role, name)
    if density < masks.SPARSE_BELOW:
        mask = torch.zeros(x.numel(), dtype=x.dtype)
        mask[masks.kept_indices(key, density, 0, x.numel())] = 1
    else:
        mask = masks.random_mask(key, density, 0, x.numel()).to(x.dtype)
    return mask.view(x.shape)


def largest(x: torch.Tensor, density: float) -> torch.Tensor:
    """The mask of the max(1, ⌊p·n⌋) largest magnitudes, ties by the lower index."""
    flat = x.flatten().numpy()
    mask = np.zeros(flat.size)
    mask[np.argsort(-np.abs(flat), kind="stable")[: max(1, int(density * flat.size))]] = 1
    return torch.from_numpy(mask).to(x.dtype).view(x.shape)


def dare(delta: torch.Tensor, tau: torch.Tensor, p: float, alpha: float, rescale: str, where: tuple) -> torch.Tensor:
    out = torch.zeros_like(delta)
    for x, weight, role in ((delta, 1 - alpha, "0"), (tau, alpha, "1")):
        kept = x * random_kept(x, p, where[0], where[1], role, where[2])
        if rescale == "unbiased":
            kept = kept / p
        elif rescale == "l1" and kept.abs().sum() > 0:
            kept = kept * (x.abs().sum() / kept.abs().sum())
        out += weight * kept
    return out


def ties(delta: torch.Tensor, tau: torch.Tensor, p: float, alpha: float, elect: str) -> torch.Tensor:
    bare_a, bare_b = delta * largest(delta, p), tau * largest(tau, p)
    a, b = (1 - alpha) * bare_a, alpha * bare_b
    if elect == "unweighted":
        sign = torch.where(bare_a + bare_b >= 0, 1.0, -1.0)
        return torch.where(bare_a * sign > 0, a, 0.0) + torch.where(bare_b * sign > 0, b, 0.0)
    out = a + b
    conflict = (a * b < 0) & (a.abs() != b.abs())
    return torch.where(conflict, torch.where(a.abs() > b.abs(), a, b), out)


class PlainOnline:
    """[OMO] Algorithms 1 and 2 with Δ_c accumulated as written there; fp64."""

    def __init__(
        self, params, tau, *, method, lr, p, alpha, every=1, rescale="none", elect="weighted", seed=0, wd=0.0, eps=1e-8
    ):
        self.theta = {n: t.detach().double().clone() for n, t in params}
        self.tau = tau
        self.set = (method, lr, p, alpha, every, rescale, elect, seed, wd, eps)
        self.m = {n: torch.zeros_like(t) for n, t in self.theta.items()}
        self.v = {n: torch.zeros_like(t) for n, t in self.theta.items()}
        self.cached = {n: torch.zeros_like(t) for n, t in self.theta.items()}
        self.t = 0

    def step(self, grads: dict[str, torch.Tensor]) -> None:
        method, lr, p, alpha, every, rescale, elect, seed, wd, eps = self.set
        self.t += 1
        for n, g in grads.items():
            g = g.double()
            self.m[n] = 0.9 * self.m[n] + 0.1 * g
            self.v[n] = 0.999 * self.v[n] + 0.001 * g * g
            mhat, vhat = self.m[n] / (1 - 0.9**self.t), self.v[n] / (1 - 0.999**self.t)
            delta = -lr * mhat / (vhat.sqrt() + eps)
            shrink = 1 - lr * wd
            if self.t % every:
                self.theta[n] = shrink * self.theta[n] + delta
                self.cached[n] = shrink * self.cached[n] + delta
                continue
            anchor = shrink * (self.theta[n] - self.cached[n])
            total = shrink * self.cached[n] + delta
            tau = self.tau[n].double() if self.tau else torch.zeros_like(delta)
            if method == "dare":
                self.theta[n] = anchor + dare(total, tau, p, alpha, rescale, (seed, self.t // every - 1, n))
            elif method == "ties":
                self.theta[n] = anchor + ties(total, tau, p, alpha, elect)
            else:
                self.theta[n] = (1 - alpha) * (anchor + total) + alpha * tau
            self.cached[n] = torch.zeros_like(delta)
