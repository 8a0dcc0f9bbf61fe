"""The deltas of a merge, sparsified as the method's row says: the statistic first, then block by block in place."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from mergetool.merge.input_blocks import InputBlocks
from mergetool.merge.plan import Plan, TensorPlan, Term
from mergetool.merge.projected import Projections, projected, rows_of
from mergetool.methods import Method
from mergetool.ops.blocks import ReadBlock, spans
from mergetool.ops.consensus import consensus
from mergetool.ops.noise import stream_key
from mergetool.ops.rescale import l1_norm, reads_norms, rescale_factor
from mergetool.ops.sparsifiers import Sparsifier, WholeDelta, row_length, sparsifier
from mergetool.ops.sparsifiers.none import SPARSIFIER as KEEP_ALL

Thresholds = dict[Any, tuple[Any, int]]
"""`_task_vector` of a term -> the sparsifier's statistic over the whole model and the model's entries before the tensor."""


class Sparse(NamedTuple):
    """One delta of one tensor: how it is sparsified. Its rescaling is left to the consensus.

    Attributes:
        read: gives blocks of the sparsified delta.
        apply: delta, start -> entries kept of the block.
        kept: entries kept of the whole tensor where that is known; `apply` then counts none.
        scale: what the entries kept are to be multiplied by.
    """

    read: ReadBlock
    apply: Callable[[torch.Tensor, int], int]
    kept: int
    scale: float


def method_of(plan: Plan) -> Method:
    """The method's row."""
    assert plan.method is not None  # a plan that is carried out here has one
    return plan.method


def rows_together(method: Method, tensor: TensorPlan) -> int:
    """Entries of a tensor that the method must be given together: a row's, or 1; those of a matrix product."""
    row = row_length(tensor.shape) if sparsifier(method.sparsifier.name).whole_rows else 1
    row = math.lcm(row, consensus(method.consensus.name).together(tensor.shape))
    return math.lcm(row, rows_of(tensor)) if method.projects else row


def sparse(
    inputs: InputBlocks, plan: Plan, tensor: TensorPlan, term: Term, whole: Thresholds, projections: Projections | None = None
) -> Sparse:
    """Take a delta's statistic.

    Args:
        inputs: this thread's.
        plan, tensor, term: which delta.
        whole: the statistics that were taken over a whole model.
        projections: of a method that projects its deltas first.
    """
    read, options = inputs.delta_reader(tensor.name, term), {**tensor.options, **term.options}
    first = None if projections is None else projected(projections, tensor, term, read, options)
    read = read if first is None else first.read
    key = stream_key(plan.recipe.seed, 0, term.role, tensor.name)
    delta = WholeDelta(read, tensor.shape, key, options)
    by = _sparsifier(method_of(plan), delta.options)
    if (vector := _task_vector(term)) in whole:
        (statistic, before), known = whole[vector], None
    else:
        statistic, before, known = by.statistic(delta), 0, by.kept(delta)

    def apply(x: torch.Tensor, start: int) -> int:
        if first is not None:
            first.apply_(x, start)
        count = by.apply(x, statistic, before + start)
        if known is not None:
            return 0
        return int(torch.count_nonzero(x)) if count is None else count

    def sparsified(start: int, stop: int) -> torch.Tensor:
        block = read(start, stop)
        by.apply(block, statistic, before + start)
        return block

    step = rows_together(method_of(plan), tensor)
    return Sparse(sparsified, apply, known or 0, _scale(by, delta, sparsified, inputs.step(step)))


def _scale(by: Sparsifier, delta: WholeDelta, sparsified: ReadBlock, step: int) -> float:
    rescale = delta.options.get("rescale")
    if rescale is None or by is KEEP_ALL or rescale in by.rescales:
        return 1.0
    before = after = 0.0
    if reads_norms(rescale):
        before = l1_norm(delta.read, delta.numel)
        for start, stop in spans(delta.numel, step):
            after += float(sparsified(start, stop).abs().sum())
    return rescale_factor(rescale, delta.density, before, after)


def whole_model_thresholds(inputs: InputBlocks, plan: Plan, tensors: Sequence[TensorPlan]) -> list[Thresholds]:
    """``scope: model``: one statistic for a model's whole task vector, and what it means for each tensor."""
    found: list[Thresholds] = [{} for _ in tensors]
    method, places = method_of(plan), [(i, t) for i, t in enumerate(tensors) if t.floating]
    vectors = {
        _task_vector(term): (term, {**tensor.options, **term.options})
        for _, tensor in places
        if method.over_whole_model(tensor.options)
        for term in tensor.terms
        if _sparsifier(method, term.options) is not KEEP_ALL
    }
    for vector, (term, options) in vectors.items():
        starts, total = [], 0
        for _, tensor in places:
            starts.append(total)
            total += tensor.numel
        parts = [(a, t.numel, inputs.delta_reader(t.name, term)) for a, (_, t) in zip(starts, places, strict=True)]
        read = _concatenated(parts, lambda n: inputs.buffer("joined", n))
        delta = WholeDelta(read, (total,), stream_key(plan.recipe.seed, 0, term.role, ""), options)
        statistic = _sparsifier(method, options).statistic(delta)
        for a, (i, _) in zip(starts, places, strict=True):
            found[i][vector] = (statistic, a)
    return found


def _sparsifier(method: Method, options: Mapping[str, Any]) -> Sparsifier:
    """The method's; the identity where everything is kept."""
    return KEEP_ALL if options.get("density", 0.0) >= 1.0 else sparsifier(method.sparsifier.name)


def _task_vector(term: Term) -> Any:
    """What a statistic over a whole model belongs to: which delta, and the options it was taken with."""
    return term.source, term.origin, tuple(sorted(term.options.items()))


def _concatenated(parts: list[tuple[int, int, ReadBlock]], buffer: Callable[[int], torch.Tensor]) -> ReadBlock:
    """Tensors, one behind the other, as one flat tensor. `parts`: (first element, elements, reader)."""
    starts = [a for a, _, _ in parts]

    def read(start: int, stop: int) -> torch.Tensor:
        out = buffer(stop - start)
        i, at = bisect_right(starts, start) - 1, start
        while at < stop:
            first, numel, inner = parts[i]
            end = min(stop, first + numel)
            if end > at:
                out[at - start : end - start] = inner(at - first, end - first)
                at = end
            i += 1
        return out

    return read
