"""Which quantisation a checkpoint is stored in, from its configuration and from the tensors themselves.

Codes are not weights: averaging them, or their scales apart from them, gives a model that nobody trained. So every
checkpoint that is opened for its numbers passes through `quantisation`: FP8 and compressed-tensors are understood (see
`dequantised`), everything else is refused by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mergetool.checkpoint.header import TensorInfo

_KEYS = ("quantization_config", "compression_config", "quantization")
_NESTED = ("text_config", "thinker_config", "llm_config", "language_config")
FP8, COMPRESSED = "fp8", "compressed-tensors"
_ORIGINAL = "merge the checkpoint that it was quantised from, and quantise the result"
_BY_TRANSFORMERS = "load it with transformers, call model.dequantize(), save_pretrained, and merge that"

# transformers' quant_method, and what else writes `quantization_config` -> (name in messages, the next step)
SCHEMES: dict[str, tuple[str, str]] = {
    FP8: ("FP8", ""),
    "mxfp8": ("MXFP8", ""),
    "fbgemm_fp8": ("FBGEMM FP8", ""),
    COMPRESSED: ("compressed-tensors", ""),
    "modelopt": ("ModelOpt", _ORIGINAL),
    "bitsandbytes": ("bitsandbytes", _BY_TRANSFORMERS),
    "gptq": ("GPTQ", _ORIGINAL),
    "awq": ("AWQ", _ORIGINAL),
    "auto-round": ("AutoRound", _ORIGINAL),
    "intel/auto-round": ("AutoRound", _ORIGINAL),
    "mxfp4": (
        "MXFP4",
        "load it with transformers and Mxfp4Config(dequantize=True), save_pretrained, and merge that",
    ),
    "nvfp4": ("NVFP4", _ORIGINAL),
    "hqq": ("HQQ", _BY_TRANSFORMERS),
    "quanto": ("Quanto", _BY_TRANSFORMERS),
    "torchao": ("torchao", _ORIGINAL),
    "aqlm": ("AQLM", _ORIGINAL),
    "vptq": ("VPTQ", _ORIGINAL),
    "eetq": ("EETQ", _ORIGINAL),
    "higgs": ("HIGGS", _BY_TRANSFORMERS),
    "spqr": ("SpQR", _ORIGINAL),
    "bitnet": ("BitNet", _ORIGINAL),
    "quark": ("Quark", _ORIGINAL),
    "fp_quant": ("FP-Quant", _ORIGINAL),
    "fouroversix": ("Four Over Six", _ORIGINAL),
    "sinq": ("SINQ", _ORIGINAL),
    "gemma": ("Gemma's own quantisation", _ORIGINAL),
    "metal": ("MLX", _ORIGINAL),
    "gguf": ("GGUF", _ORIGINAL),
}

# Endings of names that only one scheme writes, each with the ending of the tensor that must lie beside it.
_MARKS: tuple[tuple[str, str, str], ...] = (
    (".weight.absmax", "", "bitsandbytes"),
    (".SCB", "", "bitsandbytes"),
    (".W_q", "", "hqq"),
    ("_blocks", "_scales", "mxfp4"),
    (".codebooks", ".codes", "aqlm"),
    (".centroids", ".indices", "vptq"),
    (".centroids.weight", ".indices", "vptq"),
    (".dense_weights", "", "spqr"),
    (".weight_scales", ".weight", "eetq"),
    (".weight._data", ".weight._scale", "quanto"),
    (".qbiases", ".scales", "metal"),
    (".dqweight", "", "fp_quant"),
    (".tables2", ".scales", "higgs"),
    ("_weight_qdata", "", "torchao"),
    (":qdata", "", "torchao"),
    (".weight_scale_2", ".weight_scale", "modelopt"),
    (".weight_packed", "", COMPRESSED),
    (".bitmask", ".compressed", COMPRESSED),
    ("_scale_inv", "", FP8),
    (".qscale_weight", "", FP8),
)
_ENDINGS = tuple(ending for ending, _, _ in _MARKS)
_AUXILIARY = re.compile(r"(scales?|scale_inv|scale_2|zeros|zero_point|qzeros|g_idx|weight_packed|weight_shape|bitmask)$")
CODES = frozenset({"F8_E4M3", "F8_E5M2"})
_WHOLE = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a checkpoint is stored.

    Attributes:
        method: a key of `SCHEMES`, or what the configuration says where it is not one of them.
        settings: the configuration's own words on it; empty where it says nothing.
    """

    method: str
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What messages call it."""
        return SCHEMES.get(self.method, (f"'{self.method}'", ""))[0]

    @property
    def next_step(self) -> str:
        """What the user of a checkpoint that cannot be read as numbers does next."""
        return SCHEMES.get(self.method, ("", _ORIGINAL))[1] or _ORIGINAL


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says of quantisation, wherever it says it; empty where it says nothing."""
    for holder in (config, *(config.get(key) for key in _NESTED)):
        if isinstance(holder, dict):
            for key in _KEYS:
                if isinstance(value := holder.get(key), dict) and value:
                    return {"quant_method": COMPRESSED, **value} if key == "compression_config" else value
    return {}


def without_quantisation(config: dict[str, Any]) -> None:
    """Take every word on quantisation out of a configuration, for weights that are written as numbers."""
    for holder in (config, *(config.get(key) for key in _NESTED)):
        if isinstance(holder, dict):
            for key in _KEYS:
                holder.pop(key, None)


def quantisation(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Quantisation | None:
    """How a checkpoint is stored; None where its tensors are numbers.

    A configuration may say so while the weights are numbers (a merged QLoRA keeps `quantization_config`), and the weights
    may be codes while it says nothing: the tensors decide whether, the configuration which.

    Args:
        config: of config.json.
        tensors: by name, from the headers.
    """
    settings = settings_of(config)
    marked = _by_tensors(tensors)
    if marked is None and (not settings or _numbers(tensors)):
        return None
    method = str(settings.get("quant_method") or "").lower().replace("_", "-")
    method = next((known for known in SCHEMES if known.replace("_", "-") == method), method)
    if not method and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        method = "bitsandbytes"
    if not method and "bits" in settings and "group_size" in settings and marked is None:
        method = "metal"
    return Quantisation(method or marked or "unknown", settings)


def _numbers(tensors: Mapping[str, TensorInfo]) -> bool:
    """True where no tensor is a code or lies beside one."""
    matrices = (t for t in tensors.values() if len(t.shape) > 1)
    return all(t.dtype_name in _WHOLE for t in matrices) and not any(_AUXILIARY.search(name) for name in tensors)


def _by_tensors(tensors: Mapping[str, TensorInfo]) -> str | None:
    """The scheme that the tensors' names and types show."""
    marked = [name for name in tensors if name.endswith(_ENDINGS)]
    for ending, beside, method in _MARKS:
        for name in marked:
            if name.endswith(ending) and (not beside or name.removesuffix(ending) + beside in tensors):
                return method
    for name, info in tensors.items():
        stem, _, last = name.rpartition(".")
        if last == "qweight" and f"{stem}.scales" in tensors:
            return "gptq" if f"{stem}.g_idx" in tensors else "awq"
        if last == "weight" and info.dtype_name == "U32" and f"{stem}.scales" in tensors:
            return "metal"
        if info.dtype_name in CODES and scale_of(name, tensors):
            return FP8
        if info.dtype_name in ("I8", "U8") and last == "weight" and f"{name}_scale" in tensors:
            return COMPRESSED if info.dtype_name == "I8" else "bitnet"
    return None


def scale_of(name: str, tensors: Iterable[str]) -> str | None:
    """The tensor that holds a weight's scales, in any of the spellings in use: Qwen's and DeepSeek's, Mistral's, vLLM's."""
    stem, _, last = name.rpartition(".")
    beside = [f"{name}_scale_inv", f"{name}_scale"]
    if last == "weight":
        beside += [f"{stem}.scale", f"{stem}.qscale_weight"]
    return next((one for one in beside if one in tensors), None)


Kind = Literal["byte", "packed", "fp4"]


@dataclass(frozen=True, slots=True)
class Stored:
    """What one weight of `shape` is made of. Names are those of the tensors on disk.

    Attributes:
        shape: of the weight; the last two dimensions are the matrix, those before count matrices.
        codes: the tensor of codes.
        kind: ``byte`` (a code an element), ``packed`` (`bits` each, dense in words of 32), ``fp4`` (two in a byte).
        scale: the tensor of scales.
        grid: rows and columns of scales in each matrix.
        block: rows and columns of a matrix that share one scale; the last ones may be cut off.
        zero: the tensor of zero points; packed along the rows where the codes are packed.
        stated: the tensor that says the shape, which headers do not show.
    """

    shape: tuple[int, ...]
    codes: str
    kind: Kind
    bits: int
    scale: str
    grid: tuple[int, int]
    block: tuple[int, int]
    zero: str | None = None
    stated: str | None = None


@dataclass(frozen=True, slots=True)
class Dequantised:
    """How the weights of a quantised checkpoint are made: `stored` by the weight's name, `raw` the tensors on disk."""

    scheme: Quantisation
    stored: dict[str, Stored]
    raw: dict[str, TensorInfo]

    def files(self, name: str) -> list[Path]:
        """The files that a weight is read from."""
        if (stored := self.stored.get(name)) is None:
            return []
        parts = (stored.codes, stored.scale, stored.zero, stored.stated)
        return list(dict.fromkeys(self.raw[part].file for part in parts if part is not None))
