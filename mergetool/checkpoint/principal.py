"""What PiSSA and OLoRA take out of a weight before an adapter is trained, and PEFT takes out again when it loads one.

Source: Meng et al. 2024, PiSSA, arXiv 2404.02948, Eq. 2-4; Büyükakyüz 2024, OLoRA, arXiv 2406.01775; peft 0.21.2,
`pissa_init` and `olora_init`.
"""

from __future__ import annotations

import torch

from mergetool.checkpoint.adapter import Principal


def principal_part(weight: torch.Tensor, kind: Principal, rank: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(left, right) whose product is the part that the initialisation takes out.

    Args:
        weight: fp32, (rows, columns), as it is stored.
        kind: by the largest singular values, or by the first columns of Q and rows of R.
        rank: of the part.
        scale: of the adapter. PiSSA divides its factors by it; OLoRA does not, and takes out as much more.

    Returns:
        (rows, rank) and (rank, columns), fp32.
    """
    if kind == "pissa":
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        return (u[:, :rank] * s[:rank]).contiguous(), v[:rank].contiguous()
    # the first columns of Q are those of the first columns of W, and R is what they make of W
    q, _ = torch.linalg.qr(weight[:, :rank])
    return (q * scale).contiguous(), (q.T @ weight).contiguous()
