"""What an adapter does to a model's tensors, as its files say it; `lora` reads them and applies it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.place import Place

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Factors:
    """ΔW = scale·left·right, with left (rows, r) and right (r, columns); an embedding's are stored transposed."""

    a: TensorInfo
    b: TensorInfo
    scale: float
    embedding: bool


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter does to a model: low-rank additions by tensor name, and tensors that it replaces outright."""

    place: Place = field(compare=False)
    factors: dict[str, Factors]
    replaced: dict[str, TensorInfo]
    header: tuple[int, str]
