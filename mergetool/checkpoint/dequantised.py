"""FP8 and compressed-tensors presented as the numbers they stand for, from headers and config.json alone.

Sources: `Fp8Dequantize` of transformers (integrations/finegrained_fp8.py); the compressors of compressed-tensors (naive,
float, int, pack-quantized); DeepSeek-V3's weight_dequant for blocks that do not divide a matrix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.quantised import (
    CODES,
    COMPRESSED,
    FP8,
    Dequantised,
    Kind,
    Quantisation,
    Stored,
    quantisation,
    scale_of,
)
from mergetool.errors import CheckpointError

_FP8_FAMILY = (FP8, "mxfp8", "fbgemm_fp8", "modelopt")
_FORMATS = ("float-quantized", "naive-quantized", "int-quantized", "pack-quantized", "mxfp8-quantized", "mixed-precision")
_SCALES = ("F32", "BF16", "F16", "F64", "F8_E8M0", "U8")
# What lies beside a quantised weight for the activations and the cache, and means nothing to weights that are numbers.
_RUNTIME = re.compile(
    r"[._](activation_scale|input_scale|output_scale|input_zero_point|output_zero_point|input_global_scale|qscale_act|"
    r"(weight|input|output|k|v|q)_observer\.\w+|k_scale|v_scale|q_scale|kv_scale|k_zero_point|v_zero_point)$"
)


def as_numbers(layout: Layout) -> Layout:
    """A layout whose tensors are numbers: the same one where it is, with the codes dequantised where they can be read.

    Args:
        layout: as `read_layout` gives it.

    Raises:
        CheckpointError: the checkpoint is quantised in a way that cannot be read exactly; its name and the next step.
    """
    found = quantisation(layout.config, layout.tensors)
    if found is None:
        return layout
    if found.method == COMPRESSED:
        _refuse_formats(found, layout)
    elif any(name.endswith(".weight_scale_2") for name in layout.tensors):
        _refuse(f"{found.name} NVFP4", found, layout)
    elif found.method not in _FP8_FAMILY or not any(t.dtype_name in CODES for t in layout.tensors.values()):
        _refuse(found.name, found, layout)
    stored: dict[str, Stored] = {}
    for name, info in layout.tensors.items():
        if (one := _stored(name, info, layout, found)) is not None:
            stored[name.removesuffix("_packed") if one.kind == "packed" else name] = one
    return _presented(layout, found, stored)


def must_get_a_dtype(layout: Layout, dtype: str | None) -> None:
    """Refuses to write numbers that were codes where the recipe does not say as what.

    Raises:
        CheckpointError: the layout is dequantised and `dtype` is None.
    """
    if layout.dequantised is not None and dtype is None:
        raise CheckpointError(
            f"{layout.name}: its weights are quantised ({layout.dequantised.scheme.name}), and a merge of them is not",
            "add `dtype: bfloat16` to the recipe: they are dequantised as they are read",
        )


def must_not_be_codes(layout: Layout) -> None:
    """Refuses to hand a quantised checkpoint to a program that would average its codes.

    Raises:
        CheckpointError: the layout is dequantised as it is read, which only this program does.
    """
    if layout.dequantised is not None:
        scheme = layout.dequantised.scheme.name
        raise CheckpointError(
            f"{layout.name}: its weights are quantised ({scheme}), and mergekit would average the codes",
            "merge it by a method of ours (see `mergetool methods`) first",
        )


def _refuse(what: str, found: Quantisation, layout: Layout) -> NoReturn:
    raise CheckpointError(f"{layout.name}: its weights are quantised ({what}), and codes cannot be merged", found.next_step)


def _refuse_formats(found: Quantisation, layout: Layout) -> None:
    """Formats of compressed-tensors that are more than a code and a scale."""
    settings = found.settings
    sparsity = settings.get("sparsity_config") or {}
    groups = [g for g in _groups(settings) if isinstance(g, dict)]
    formats = {str(f) for f in (settings.get("format"), *(g.get("format") for g in groups)) if f}
    if isinstance(sparsity, dict) and sparsity.get("format") not in (None, "dense"):
        formats.add(str(sparsity["format"]))
    formats -= {"dense", "fakequant", *_FORMATS}
    for ending, what in (
        (".bitmask", "sparse-bitmask"),
        (".weight_global_scale", "nvfp4-pack-quantized"),
        (".weight_g_idx", "g_idx"),
    ):
        if any(name.endswith(ending) for name in layout.tensors):
            formats.add(what)
    if any(n.endswith(".weight_packed") and t.dtype_name != "I32" for n, t in layout.tensors.items()) and not formats:
        formats.add("mxfp4-pack-quantized")
    transform = settings.get("transform_config")
    if transform and not (isinstance(transform, dict) and not transform.get("config_groups")):
        formats.add("with rotated weights (transform_config)")
    if formats:
        _refuse(f"{found.name} {sorted(formats)[0]}", found, layout)


def _stored(name: str, info: TensorInfo, layout: Layout, found: Quantisation) -> Stored | None:
    """How a weight is made of the tensor `name` and those beside it; None for a tensor that is itself."""
    tensors = layout.tensors
    if name.endswith(".weight_packed"):
        return _packed(name, info, layout, found)
    scale = scale_of(name, tensors)
    if info.dtype_name not in CODES and (info.dtype_name != "I8" or scale is None):
        if scale is not None and scale.endswith(("_scale_inv", ".qscale_weight")):
            _damaged(layout, f"tensor '{name}' is {info.dtype_name} and no code, but has scales")
        return None
    if scale is None:
        _damaged(layout, f"tensor '{name}' is {info.dtype_name}, and no tensor holds its scales")
    shape = info.shape
    kind: Kind = "byte"
    if info.dtype_name == "I8" and found.method in _FP8_FAMILY:  # two FP4 codes in a byte, as DeepSeek-V4 stores experts
        shape, kind = (*shape[:-1], 2 * shape[-1]), "fp4"
    grid, block = _grid(name, shape, tensors[scale], layout, _declared(name, found))
    zero = f"{name}_zero_point"
    if zero in tensors and _grid(name, shape, tensors[zero], layout, _declared(name, found)) != (grid, block):
        _damaged(layout, f"'{zero}' has shape {list(tensors[zero].shape)}, unlike the scales")
    return Stored(shape, name, kind, 8, scale, grid, block, zero if zero in tensors else None)


def _packed(name: str, info: TensorInfo, layout: Layout, found: Quantisation) -> Stored:
    """`weight_packed`: words of 32 bits; how many bits a code has is said by the configuration and checked by the shapes."""
    stem = name.removesuffix("_packed")
    scale = layout.tensors.get(f"{stem}_scale")
    if scale is None or len(info.shape) < 2:
        _damaged(layout, f"tensor '{name}' has no scales beside it")
    words, fits = info.shape[-1], []
    for weights in _weights_of(stem.removesuffix(".weight"), found):
        bits, size = weights.get("num_bits"), weights.get("group_size")
        if weights.get("type", "int") != "int" or not isinstance(bits, int) or not 1 <= bits <= 8:
            continue
        columns = scale.shape[-1] * size if isinstance(size, int) and size > 0 else words * 32 // bits
        if math.ceil(columns * bits / 32) == words:
            fits.append((bits, columns, bool(weights.get("symmetric", True))))
    if len(set(fits)) != 1:
        what = "its quantization_config does not say how" if not fits else "its quantization_config says it in two ways"
        raise CheckpointError(
            f"{layout.name}: tensor '{name}' of shape {list(info.shape)} is packed, and {what}", "fetch config.json again"
        )
    bits, columns, symmetric = fits[0]
    shape = (*info.shape[:-1], columns)
    grid, block = _grid(name, shape, scale, layout, _declared(stem, found))
    zero = None if symmetric else f"{stem}_zero_point"
    if zero is not None:
        expected = (*shape[:-2], math.ceil(shape[-2] * bits / 32), grid[1])
        if zero not in layout.tensors or layout.tensors[zero].shape != expected or grid[0] != shape[-2]:
            _damaged(layout, f"tensor '{name}' needs zero points '{zero}' of shape {list(expected)}")
    stated = f"{stem}_shape"
    return Stored(shape, name, "packed", bits, scale.name, grid, block, zero, stated if stated in layout.tensors else None)


def _damaged(layout: Layout, what: str) -> NoReturn:
    raise CheckpointError(f"{layout.name}: {what}", "fetch the checkpoint again, or save it again unquantised")


def _groups(settings: Mapping[str, Any]) -> list[Any]:
    groups = settings.get("config_groups")
    return list(groups.values()) if isinstance(groups, dict) else []


def _weights_of(module: str, found: Quantisation) -> list[dict[str, Any]]:
    """What compressed-tensors' groups say of a module's weights: those that name it, else those that name a class."""
    named: list[list[dict[str, Any]]] = [[], [], []]
    for group in _groups(found.settings):
        weights = group.get("weights") if isinstance(group, dict) else None
        if not isinstance(weights, dict):
            continue
        for target in group.get("targets") or []:
            if target == module or module.endswith(f".{target}"):
                named[0].append(weights)
            elif target.startswith("re:"):
                if re.match(target.removeprefix("re:"), module):
                    named[1].append(weights)
            else:
                named[2].append(weights)
    return next((one for one in named if one), [])


def _declared(name: str, found: Quantisation) -> list[tuple[int, int]]:
    """The blocks that a configuration speaks of: rows and columns that share a scale."""
    sizes = [found.settings.get("weight_block_size")]
    sizes += [w.get("block_structure") for w in _weights_of(name.removesuffix(".weight"), found)]
    return [
        (b[0], b[1])
        for b in sizes
        if isinstance(b, (list, tuple)) and len(b) == 2 and all(isinstance(n, int) and n > 0 for n in b)
    ]


def _grid(
    name: str, shape: tuple[int, ...], scale: TensorInfo, layout: Layout, declared: list[tuple[int, int]]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(rows and columns of scales in each matrix, rows and columns of a matrix that share one)."""
    rows, columns = (1, *shape)[-2:] if len(shape) < 2 else shape[-2:]
    counts = math.prod(shape[:-2])
    if scale.numel == 1 and counts == 1:
        return (1, 1), (rows, columns)
    if len(shape) > 2 and scale.shape in ((counts,), (*shape[:-2],)):
        return (1, 1), (rows, columns)  # one for each matrix
    grid = (*scale.shape, 1) if len(scale.shape) == 1 and scale.numel == rows else scale.shape
    if scale.dtype_name in (*_SCALES, "I8", "I32") and len(grid) >= 2 and math.prod(grid[:-2]) == counts:
        across, along = grid[-2:]
        for block in declared:  # the last block of a row or column may be cut off: only the configuration says where
            if math.ceil(rows / block[0]) == across and math.ceil(columns / block[1]) == along:
                return (across, along), block
        if across and along and not rows % across and not columns % along:
            return (across, along), (rows // across, columns // along)
    _damaged(layout, f"scales of shape {list(scale.shape)} ({scale.dtype_name}) do not fit tensor '{name}' of {list(shape)}")


def _presented(layout: Layout, found: Quantisation, stored: dict[str, Stored]) -> Layout:
    """The layout of the weights that `stored` makes, in the order of their codes, without what is only a part of them."""
    parts = {p for one in stored.values() for p in (one.scale, one.zero, one.stated) if p is not None}
    made = {one.codes: name for name, one in stored.items()}
    tensors: dict[str, TensorInfo] = {}
    for name, info in layout.tensors.items():
        if (weight := made.get(name)) is not None:
            one = stored[weight]
            nbytes = info.nbytes + layout.tensors[one.scale].nbytes
            tensors[weight] = TensorInfo(weight, "F32", one.shape, info.file, info.offset, nbytes)
        elif name not in parts and not _RUNTIME.search(name) and not _leftover(name, layout, found):
            tensors[name] = info
    return replace(layout, tensors=tensors, dequantised=Dequantised(found, stored, layout.tensors))


def _leftover(name: str, layout: Layout, found: Quantisation) -> bool:
    """Scales and zero points beside a weight that compressed-tensors left as it was (formats dense and fakequant)."""
    stem = re.sub(r"_(scale|zero_point|shape)$", "", name)
    return found.method == COMPRESSED and stem != name and stem.endswith(".weight") and f"{stem}" in layout.tensors
