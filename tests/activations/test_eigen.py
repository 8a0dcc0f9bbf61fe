"""The largest eigenpairs: by iteration as by LAPACK, and never more of them than there are."""

from __future__ import annotations

import torch

from mergetool.activations import eigen
from mergetool.activations.eigen import top_eigenpairs


def second_moment(n: int, decay: float) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    u = torch.linalg.qr(torch.randn(n, n, generator=rng, dtype=torch.float64))[0]
    return (u * torch.arange(1, n + 1, dtype=torch.float64) ** -decay) @ u.T


def test_iteration_finds_what_lapack_finds(monkeypatch) -> None:
    c = second_moment(300, 1.2)
    exact = top_eigenpairs(c, 20, 1.0)
    monkeypatch.setattr(eigen, "EXACT", 0)
    values, vectors = top_eigenpairs(c, 20, 1.0)
    assert (values - exact[0]).abs().max() < 1e-5 * exact[0][0]
    ours, theirs = ((u * e) @ u.T for e, u in ((values, vectors), exact))
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()
    assert (vectors.T @ vectors - torch.eye(20)).abs().max() < 1e-9


def test_a_moment_of_few_inputs_has_few_eigenpairs() -> None:
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, vectors = top_eigenpairs(x.T @ x, 40, 1.0)
    assert values.shape == (3,)
    assert vectors.shape == (50, 3)
    assert (values.diff() <= 0).all()


def test_no_inputs_have_no_eigenpairs() -> None:
    values, vectors = top_eigenpairs(torch.zeros(5, 5, dtype=torch.float64), 3, 0.9)
    assert values.numel() == 0
    assert vectors.shape == (5, 0)


def test_signs_are_settled() -> None:
    _, vectors = top_eigenpairs(second_moment(20, 1.0), 20, 1.0)
    assert (vectors.gather(0, vectors.abs().argmax(0, keepdim=True)) > 0).all()
