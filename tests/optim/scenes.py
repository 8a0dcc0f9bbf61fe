"""Small parameters, deltas and gradients that the optimizer tests share."""

from __future__ import annotations

import torch

SHAPES = {"embed.weight": (700, 129), "layer.weight": (64, 65), "norm.weight": (65,), "scale": ()}


def parameters(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[tuple[str, torch.nn.Parameter]]:
    rng = torch.Generator().manual_seed(seed)
    return [(n, torch.nn.Parameter((torch.randn(s, generator=rng) * 0.02).to(dtype))) for n, s in SHAPES.items()]


def deltas(seed: int = 1, scale: float = 1e-3) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=rng) * scale for n, s in SHAPES.items()}


def gradients(step: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1000 + step)
    return {n: (torch.randn(s, generator=rng) * 1e-2).to(dtype) for n, s in SHAPES.items()}


Named = list[tuple[str, torch.nn.Parameter]]


def run(optimizer: torch.optim.Optimizer, params: Named, steps: int, first: int = 0) -> None:
    """Steps with the gradients of steps `first`, `first` + 1, …"""
    for step in range(first, first + steps):
        grads = gradients(step, params[0][1].dtype)
        for n, p in params:
            p.grad = grads[n].clone()
        optimizer.step()


def values(params: list[tuple[str, torch.nn.Parameter]]) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in params}
