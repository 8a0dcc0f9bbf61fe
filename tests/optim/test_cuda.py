"""On a CUDA device: the entries that the CPU keeps, and its weights to within roundings."""

from __future__ import annotations

import pytest
import torch

from mergetool.optim import OnDARE, OnTIES
from tests.optim.scenes import deltas, gradients, parameters, values

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CASES = [
    (OnDARE, {"density": 0.01}),
    (OnDARE, {"density": 0.3}),
    (OnDARE, {"density": 0.3, "compile": True}),
    (OnDARE, {"density": 0.3, "every": 3}),
    (OnTIES, {"density": 0.01}),
    (OnTIES, {"density": 0.3}),
    (OnTIES, {"density": 0.3, "compile": True}),
]


def trained(device: str, dtype: torch.dtype, cls: type, settings: dict, steps: int) -> dict[str, torch.Tensor]:
    ours = [(n, torch.nn.Parameter(p.detach().to(device))) for n, p in parameters(dtype=dtype)]
    tau = {n: t.to(device) for n, t in deltas().items()}
    # ε is large so that the updates' sizes are told apart by more than their roundings
    optimizer = cls(ours, lr=1e-3, eps=1e-3, alpha=0.01, reference=tau, seed=5, rounding="nearest", **settings)
    for step in range(steps):
        grads = gradients(step, dtype)
        for n, p in ours:
            p.grad = grads[n].to(device)
        optimizer.step()
    return {n: p.detach().cpu() for n, p in ours}


@pytest.mark.parametrize(("cls", "settings"), CASES)
def test_the_device_keeps_the_entries_that_the_cpu_keeps(cls: type, settings: dict) -> None:
    steps = settings.get("every", 1)
    before = values(parameters())
    there, here = (trained(device, torch.float32, cls, settings, steps) for device in ("cuda", "cpu"))
    for name in before:
        moved = (there[name] != before[name], here[name] != before[name])
        assert torch.equal(*moved), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("cls", "settings"), CASES)
def test_the_device_comes_to_the_cpus_weights(cls: type, settings: dict, dtype: torch.dtype) -> None:
    there, here = (trained(device, dtype, cls, settings, 6) for device in ("cuda", "cpu"))
    ulp = torch.finfo(dtype).eps
    for name in there:
        apart = (there[name] - here[name]).abs().float()
        # an update at the very threshold may be kept by one and dropped by the other
        assert (apart > 8 * ulp / 0.3 * here[name].abs().max()).float().mean() <= 1e-3, name
