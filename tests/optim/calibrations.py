"""Calibrations without a model: random second moments for named parameters."""

from __future__ import annotations

import torch

from mergetool.activations.artifact import Calibration, Site, Tensor
from mergetool.activations.eigen import top_eigenpairs
from tests.optim.scenes import SHAPES


def calibration(
    shapes: dict[str, tuple[int, ...]] = SHAPES, rank: int = 1000, seed: int = 7, transposed: bool = False
) -> Calibration:
    """Matrices have columns (rows where `transposed`), the one called embed rows by token too, vectors a diagonal."""
    rng = torch.Generator().manual_seed(seed)
    sites, tensors, stored = {}, {}, {}

    def diagonal(key: str, n: int) -> str:
        values = torch.rand(n, generator=rng)
        sites[key] = Site(n, float(values.sum()), 1, n, 1.0, diagonal=True)
        stored[f"{key}.values"] = values
        return key

    for name, shape in shapes.items():
        if len(shape) == 1:
            tensors[name] = Tensor(shape, (diagonal(name, *shape),))
        if len(shape) == 2:
            n = shape[0 if transposed else 1]
            x = torch.randn(3 * n, n, generator=rng, dtype=torch.float64) * torch.logspace(0, -2, n, dtype=torch.float64)
            c = x.T @ x / x.shape[0]
            values, vectors = top_eigenpairs(c, rank, 1.0)
            trace = float(c.diagonal().sum())
            sites[name] = Site(n, trace, 1, values.numel(), float(values.sum()) / trace)
            stored |= {f"{name}.values": values.float(), f"{name}.vectors": vectors.float()}
            tokens = (diagonal(f"{name}:tokens", shape[0]),) if name.startswith("embed") and not transposed else ()
            tensors[name] = Tensor(shape, *(((), (name,)) if transposed else ((name,), tokens)))
    return Calibration({}, sites, tensors, stored.__getitem__)
