"""What an adapter does to a model's tensors, as its files say it; `lora` works it out, `adapted_reader` applies it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mergetool.architecture.fused import Runs
from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.place import Place

ADAPTER, PICKLED_ADAPTER = "adapter_model.safetensors", "adapter_model.bin"
ADAPTER_CONFIG = "adapter_config.json"

Principal = Literal["pissa", "olora"]
"""Whose part of largest norm an initialisation took out of the base: by singular values, or the first of a QR."""


@dataclass(frozen=True, slots=True)
class Factors:
    """ΔW = scale·B·A, with A (r, columns) and B (rows, r) as PEFT stores them.

    Attributes:
        a, b: where the factors lie.
        scale: α/r, or α/√r.
        transposed: the weight is stored as (columns, rows): embeddings, and layers with fan_in_fan_out.
        experts: how many matrices the weight holds; A then has r rows for each, and B r columns, the expert's number the
            fastest.
    """

    a: TensorInfo
    b: TensorInfo
    scale: float
    transposed: bool
    experts: int = 1

    @property
    def rank(self) -> int:
        """r."""
        return self.a.shape[0] // self.experts


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one weight W, in this order.

    Attributes:
        replaced: the tensor that takes its place.
        rows: (a tensor, which rows of W its rows take the place of).
        principal: what the initialisation took out of W, of the factors' rank.
        factors: what is added to it.
        added: (a tensor, its factor) of one dimension, which is added too.
        magnitude: the norm that each row of the sum is given (DoRA); each column where the factors are transposed.
    """

    shape: tuple[int, ...]
    replaced: TensorInfo | None = None
    rows: tuple[TensorInfo, tuple[int, ...]] | None = None
    principal: Principal | None = None
    factors: Factors | None = None
    added: tuple[TensorInfo, float] | None = None
    magnitude: TensorInfo | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter does to a model.

    Attributes:
        place: where its files lie.
        changes: weight -> its change. A weight that is one tensor on disk has that tensor's name.
        parts: tensor on disk -> (weight, the weight's entries that it holds), where a weight is several tensors.
        file: the adapter's weight file.
        header: its size in bytes, and the hash of its header.
    """

    place: Place = field(compare=False)
    changes: dict[str, Change]
    parts: dict[str, tuple[str, Runs]]
    header: tuple[int, str]
    file: str = ADAPTER
