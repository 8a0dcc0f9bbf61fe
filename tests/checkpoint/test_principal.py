"""The principal part is the best of its rank, or the first of a QR; whatever remains is orthogonal to it."""

from __future__ import annotations

import pytest
import torch

from mergetool.checkpoint.principal import principal_part


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (9, 9)])
def test_pissa_takes_the_largest_singular_values(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, right = principal_part(weight, "pissa", 3, 2.0)
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(torch.linalg.svdvals(weight - left @ right)[: len(values) - 3], values[3:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (9, 9)])
def test_olora_takes_the_first_of_the_whole_qr_times_the_scale(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    q, r = torch.linalg.qr(weight)
    left, right = principal_part(weight, "olora", 3, 2.0)
    torch.testing.assert_close(left @ right, 2.0 * q[:, :3] @ r[:3], rtol=1e-5, atol=1e-5)
