"""The basis is orthonormal and spans what it was made of, as numpy's QR of the same vectors laid end to end says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mergetool.ops import span
from mergetool.ops.span import Span, inner

SIZES = {"embed": 700, "norm": 16, "up": 331}


def vector(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, generator=generator) for name, size in SIZES.items()}


def sum_of(*terms: tuple[float, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    found = {name: torch.zeros(size) for name, size in SIZES.items()}
    for weight, one in terms:
        for name, entries in one.items():
            found[name] += weight * entries
    return found


def flat(one) -> np.ndarray:
    return np.concatenate([one[name].double().numpy() for name in SIZES])


def copy(one: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: entries.clone() for name, entries in one.items()}


@pytest.fixture(autouse=True, params=[1 << 22, 100])
def block(request, monkeypatch) -> None:
    """In one piece, and in several."""
    monkeypatch.setattr(span, "_BLOCK", request.param)


def nearly_parallel() -> list[dict[str, torch.Tensor]]:
    """Three vectors within 1e-3 of one another, of lengths from 1e-4 to 1e4."""
    common = vector(0)
    return [sum_of((size, common), (size * 1e-3, vector(i))) for i, size in enumerate((1.0, 1e4, 1e-4), 1)]


def test_the_basis_is_orthonormal_though_the_vectors_are_nearly_parallel_and_of_any_length() -> None:
    basis = np.stack([flat(one) for one in Span.of(nearly_parallel()).basis])
    assert np.abs(basis @ basis.T - np.eye(3)).max() < 2e-7


def test_what_is_left_of_a_vector_is_orthogonal_to_every_vector_of_the_span_and_is_what_qr_leaves() -> None:
    vectors = [vector(i) for i in range(3)]
    columns = np.stack([flat(one) for one in vectors], axis=1)
    q, _ = np.linalg.qr(columns)
    x = sum_of((5.0, vectors[0]), (1.0, vector(9)))
    found, rest = Span.of([copy(one) for one in vectors]), copy(x)
    coordinates = found.coordinates(x)
    found.subtract(rest, coordinates)
    wanted = flat(x) - q @ (q.T @ flat(x))
    assert np.allclose(flat(rest), wanted, atol=1e-5)
    assert np.abs(columns.T @ flat(rest)).max() < 1e-6 * np.linalg.norm(columns, axis=0).max() * np.linalg.norm(flat(x))
    assert sum(c * c for c in coordinates) == pytest.approx(np.square(q.T @ flat(x)).sum(), rel=1e-6)


def test_a_vector_in_the_span_of_the_others_and_one_of_zeros_add_nothing() -> None:
    one, two = vector(1), vector(2)
    within = sum_of((3.0, one), (-0.5, two))
    found = Span.of([copy(one), sum_of(), copy(two), within, copy(one)])
    assert len(found.basis) == 2
    for before, after in zip(Span.of([copy(one), copy(two)]).basis, found.basis, strict=True):
        assert np.array_equal(flat(before), flat(after))
    assert len(Span.of([sum_of()]).basis) == 0


def test_a_narrow_type_is_rounded_once() -> None:
    found, x = Span.of([vector(1)]), vector(2)
    rest = {name: entries.bfloat16() for name, entries in x.items()}
    coordinates, exact = found.coordinates(rest), {name: entries.float() for name, entries in rest.items()}
    found.subtract(rest, coordinates)
    found.subtract(exact, coordinates)
    assert all(torch.equal(rest[name], exact[name].bfloat16()) for name in SIZES)


def test_the_inner_product_is_one_over_all_tensors_and_loses_nothing_to_fp32() -> None:
    a, b = sum_of((1e4, vector(1))), vector(2)
    b = sum_of((1.0, b), (-inner(a, b) / inner(a, a), a))
    assert inner(a, b) == pytest.approx(float(flat(a) @ flat(b)), abs=1e-9 * float(np.linalg.norm(flat(a))))


def test_a_vector_with_an_entry_that_is_no_number_is_refused() -> None:
    bad = vector(1)
    bad["norm"][3] = float("inf")
    with pytest.raises(ValueError, match="no number"):
        Span.of([vector(2), bad])
