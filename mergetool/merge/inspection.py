"""What a checkpoint holds, how far it lies from another, and whether two of them pull the same way."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mergetool.activations.artifact import Calibration
from mergetool.architecture.layers import Stacks
from mergetool.architecture.match import Match, match
from mergetool.checkpoint.in_form import in_form_of
from mergetool.checkpoint.open import open_reader
from mergetool.checkpoint.reader import Reader
from mergetool.config.sources import resolve_source
from mergetool.errors import CheckpointError, OutputError, RecipeError, plain
from mergetool.hub.fetch import Fetching, fetch_weights
from mergetool.hub.references import open_layout
from mergetool.merge.tax_rate import check_calibration, tax_rate
from mergetool.ops.blocks import spans

_LARGEST, _LABELS, _LETTERS = 80.0, 200, 60  # of a picture: inches a side, rows with their names, letters of a name


@dataclass(frozen=True)
class TensorFacts:
    """One tensor. Norms are Euclidean; fractions are of all entries, None where there is nothing to compare with.

    Attributes:
        delta_norm: ‖model − base‖.
        relative: ‖model − base‖/‖base‖.
        changed: fraction of entries that differ from the base.
        sign_agreement: among entries that both models moved, the fraction moved in the same direction.
        cosine: between the two task vectors.
        tax_rate: the share of ‖model − base‖² in the directions that calibration rows read, see `tax_rate`.
        tax_rate_by_chance: what it would be for a delta without a direction of its own.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    numel: int
    norm: float
    delta_norm: float | None = None
    relative: float | None = None
    changed: float | None = None
    sign_agreement: float | None = None
    cosine: float | None = None
    tax_rate: float | None = None
    tax_rate_by_chance: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def inspect(
    model: str | Path,
    base: str | Path | None = None,
    other: str | Path | None = None,
    progress: Fetching | None = None,
    calibration: str | Path | None = None,
) -> list[TensorFacts]:
    """What a checkpoint holds, tensor by tensor, and how far it lies from another, as ``mergetool inspect`` does.

    Args:
        model: a directory, ``lab:NAME`` or a Hub id.
        base: show the task vector: model minus this one.
        other: a second model: do both task vectors agree in sign? Needs `base`.
        progress: told of bytes as they arrive from the Hub.
        calibration: of `base`, from ``mergetool calibrate``: measure the tax rate of the task vector too.

    Raises:
        RecipeError: `other` or `calibration` is given without `base`, or the lab has no such part.
        CheckpointError: a model is missing or damaged, or lacks a tensor of the first one's shape.
    """
    if other is not None and base is None:
        raise RecipeError("other compares two task vectors and needs base", "give base, the model that both were trained from")
    if calibration is not None and base is None:
        raise RecipeError("calibration is of the model that a task vector starts from", "give base, the model it was made of")
    opened = None if calibration is None else Calibration.load(calibration)
    base, other = (None if one is None else str(resolve_source(str(one), ".")) for one in (base, other))
    return inspect_model(str(resolve_source(str(model), ".")), base, other, progress, opened)


def inspect_model(
    model: str,
    base: str | None = None,
    other: str | None = None,
    progress: Fetching | None = None,
    calibration: Calibration | None = None,
) -> list[TensorFacts]:
    """Walk a checkpoint tensor by tensor, in blocks, beside a base and a second model where they are given.

    Args:
        model, base, other: directories or Hub ids; `other` needs `base`.
        progress: told of bytes as they arrive from the Hub.
        calibration: of `base`.

    Raises:
        CheckpointError: a model is missing or damaged, or does not match the first one; or the calibration is of another.
    """
    layouts = [open_layout(m) for m in (model, base, other) if m is not None]
    layouts = [in_form_of(layout, layouts[0]) for layout in layouts]
    found = match(layouts)
    if calibration is not None:
        check_calibration(calibration, {name: info.shape for name, info in layouts[1].tensors.items()})
    fetch_weights(layouts, progress)
    readers = [open_reader(layout) for layout in layouts]
    alone = set(found.carried)
    facts = [
        _facts(readers[:1] if name in alone else readers, found, name)
        for name in found.names
        if readers[0].layout.tensors[found.stands_for[0].get(name, name)].floating
    ]
    return facts if calibration is None else [_with_tax(fact, found, readers, calibration) for fact in facts]


def _with_tax(fact: TensorFacts, found: Match, readers: list[Reader], calibration: Calibration) -> TensorFacts:
    if fact.delta_norm is None:
        return fact
    names = (found.stands_for[0].get(fact.name, fact.name), found.stands_for[1].get(fact.name, fact.name))
    measured = tax_rate(calibration, fact.name, readers[0], readers[1], names)
    return fact if measured is None else replace(fact, tax_rate=measured.rate, tax_rate_by_chance=measured.chance)


def _facts(readers: list[Reader], found: Match, name: str) -> TensorFacts:
    """The facts of one tensor; `readers` is the model's alone where the others have nothing to compare it with."""
    stored = [held.get(name, name) for held in found.stands_for]
    info = readers[0].layout.tensors[stored[0]]
    sums = torch.zeros(8, dtype=torch.float64)
    for start, stop in spans(info.numel):
        model, *others = (r.block(own, start, stop).float() for r, own in zip(readers, stored, strict=False))
        sums[0] += torch.dot(model, model)
        if not others:
            continue
        delta = model - others[0]
        sums[1] += torch.dot(delta, delta)
        sums[2] += torch.dot(others[0], others[0])
        sums[3] += delta.count_nonzero()
        if len(others) == 2:
            theirs = others[1] - others[0]
            product = torch.sign(delta) * torch.sign(theirs)
            sums[4] += (product > 0).sum()
            sums[5] += product.count_nonzero()
            sums[6] += torch.dot(delta, theirs)
            sums[7] += torch.dot(theirs, theirs)
    norm2, delta2, base2, changed, agree, both, dot, theirs2 = sums.tolist()
    facts: dict[str, Any] = {}
    if len(readers) > 1:
        facts = {
            "delta_norm": math.sqrt(delta2),
            "relative": math.sqrt(delta2 / base2) if base2 else None,
            "changed": changed / info.numel if info.numel else 0.0,
        }
    if len(readers) == 3:
        facts["sign_agreement"] = agree / both if both else None
        facts["cosine"] = dot / math.sqrt(delta2 * theirs2) if delta2 and theirs2 else None
    return TensorFacts(name, info.dtype_name, info.shape, info.numel, math.sqrt(norm2), **facts)


def by_layer(facts: list[TensorFacts]) -> list[dict[str, Any]]:
    """One row a layer (embeddings, norms and heads under "other"): parameters, norms, and means weighted by size."""
    groups: dict[tuple[str, int], list[TensorFacts]] = {}
    stacks = Stacks(fact.name for fact in facts)
    for fact in facts:
        groups.setdefault(stacks.place(fact.name) or ("", -1), []).append(fact)
    rows = []
    for (stack, layer), members in sorted(groups.items(), key=lambda g: g[0]):
        name = "other" if layer < 0 else f"{stack}.{layer}"
        row: dict[str, Any] = {"layer": name, "parameters": sum(f.numel for f in members)}
        row["norm"] = math.sqrt(sum(f.norm**2 for f in members))
        if any(f.delta_norm is not None for f in members):
            row["delta_norm"] = math.sqrt(sum((f.delta_norm or 0.0) ** 2 for f in members))
        taxed = [f for f in members if f.tax_rate is not None and f.tax_rate_by_chance is not None]
        if taxed:  # of the layer's delta, so weighted by it
            weights = [(f.delta_norm or 0.0) ** 2 for f in taxed]
            row["tax_rate"] = sum((f.tax_rate or 0.0) * w for f, w in zip(taxed, weights, strict=True)) / sum(weights)
            row["by_chance"] = sum((f.tax_rate_by_chance or 0.0) * w for f, w in zip(taxed, weights, strict=True)) / sum(
                weights
            )
        for key in ("changed", "sign_agreement", "cosine"):
            pairs = [(getattr(f, key), f.numel) for f in members if getattr(f, key) is not None]
            if pairs:
                row[key] = sum(v * n for v, n in pairs) / sum(n for _, n in pairs)
        rows.append(row)
    return rows


def heat_map(facts: list[TensorFacts], path: Path, title: str) -> None:
    """Draw ‖model − base‖/‖base‖ as layers × modules into a PNG; the tax rate where it was measured, ‖model‖ without a base."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    cells: dict[tuple[str, int], float] = {}
    compared, taxed = (any(getattr(fact, key) is not None for fact in facts) for key in ("delta_norm", "tax_rate"))
    stacks = Stacks(fact.name for fact in facts)
    for fact in facts:
        place = stacks.place(fact.name)
        value = fact.tax_rate if taxed else fact.relative if compared else fact.norm
        if place and value is not None:
            kind = fact.name.removeprefix(f"{place.stack}.{place.layer}.").removesuffix(".weight")
            cells[kind, place.layer] = value
    if not cells:
        raise CheckpointError("no tensor belongs to a numbered layer", "leave out --plot")
    kinds, layers = sorted({k for k, _ in cells}), sorted({layer for _, layer in cells})  # a number may be any number
    row, column = ({one: at for at, one in enumerate(names)} for names in (kinds, layers))
    grid = np.full((len(kinds), len(layers)), np.nan)
    for (kind, layer), value in cells.items():
        grid[row[kind], column[layer]] = value
    size = min(3.2 + 0.32 * len(layers), _LARGEST), min(1.6 + 0.36 * len(kinds), _LARGEST)
    with plt.rc_context({"text.parse_math": False}):  # a dollar sign in a name is one
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        image = axes.imshow(grid, aspect="auto", cmap="viridis")
        axes.set_yticks(range(len(kinds))[:_LABELS], [plain(kind[-_LETTERS:]) for kind in kinds[:_LABELS]])
        shown = range(0, len(layers), max(1, len(layers) // 12))
        axes.set_xticks(shown, [str(layers[at]) for at in shown])
        axes.set_xlabel("layer")
        axes.set_title(plain(title), fontsize=10)
        label = "tax rate: share of the delta that calibration rows see" if taxed else "‖model − base‖ / ‖base‖"
        label = label if compared else "‖model‖"
        figure.colorbar(image, label=label)
        try:
            figure.savefig(path, dpi=130)
        except ValueError as error:  # an ending that is none of a picture's
            raise OutputError(f"{path}: {error}", "name it .png") from None
        finally:
            plt.close(figure)
