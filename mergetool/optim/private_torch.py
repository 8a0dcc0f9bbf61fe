"""What is used of torch that it does not promise to keep; tested with torch 2.13."""

from __future__ import annotations

import torch
from torch._C import _to_dlpack

fused_adamw_ = vars(torch)["_fused_adamw_"]
"""The kernel of ``torch.optim.AdamW(fused=True)``."""

to_dlpack = _to_dlpack
"""A tensor's memory as a capsule that ``torch.utils.dlpack.from_dlpack`` makes a tensor of its own of."""
