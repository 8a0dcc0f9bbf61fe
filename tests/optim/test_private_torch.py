"""What is used of torch without a promise is still what it was."""

from __future__ import annotations

import torch
from torch.utils.dlpack import from_dlpack

from mergetool.optim.private_torch import fused_adamw_, to_dlpack


def test_the_fused_kernel_is_the_step_of_torchs_own_optimizer() -> None:
    theta, grad = torch.randn(1000), torch.randn(1000)
    p = torch.nn.Parameter(theta.clone())
    p.grad = grad
    torch.optim.AdamW([p], lr=1e-2, fused=True, weight_decay=0.1).step()
    m, v = torch.zeros(1000), torch.zeros(1000)
    fused_adamw_(
        [theta], [grad], [m], [v], [], [torch.tensor(1.0)], lr=1e-2, beta1=0.9, beta2=0.999, weight_decay=0.1, eps=1e-8,
        amsgrad=False, maximize=False,
    )  # fmt: skip
    assert torch.equal(theta, p.detach())


def test_a_capsule_gives_the_same_memory_as_a_tensor_of_its_own() -> None:
    whole = torch.arange(10.0)
    part = from_dlpack(to_dlpack(whole[4:]))
    assert part.data_ptr() == whole[4:].data_ptr()
    assert part.storage_offset() == 0
