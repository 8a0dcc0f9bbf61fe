"""One tensor's arithmetic: blocks of the inputs in, rounded blocks of every result out.

A block's walk: load and convert to fp32, subtract, sparsify, combine, add to the base, round once, hand on. The
buffers are reused for every block of every tensor, because fresh pages would cost more than the arithmetic. Which
sparsifier and which consensus is the method's row; what they do is theirs alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from mergetool.checkpoint.header import DTYPES
from mergetool.checkpoint.reader import Reader
from mergetool.errors import CheckpointError
from mergetool.merge import sparsify
from mergetool.merge.input_blocks import InputBlocks, origin_of
from mergetool.merge.obtained import Own
from mergetool.merge.plan import Plan, TensorPlan
from mergetool.merge.projected import Projections
from mergetool.merge.sparsify import Sparse, Thresholds, method_of, rows_together, sparse
from mergetool.ops.blocks import ReadBlock, spans
from mergetool.ops.consensus import Consensus, WholeInputs, consensus
from mergetool.ops.consensus.sum import add_delta

Emit = Callable[[int, torch.Tensor], None]
"""Receives (first element, rounded block in the output dtype); the block is valid during the call."""
Combine = Callable[[dict[int, torch.Tensor], int, int], torch.Tensor]
"""A method's work on one block: source -> its fp32 block, start, stop -> the fp32 result."""


def torch_dtype(dtype_name: str) -> torch.dtype:
    """safetensors' name of a dtype -> torch's."""
    return getattr(torch, DTYPES[dtype_name][0])


class TensorMerger:
    """Merges one tensor at a time, for several recipes over the same inputs at once. One for each thread.

    Args:
        plans: share their sources; each tensor is read once for all of them.
        readers: one for each source.
        device: where the arithmetic happens.
        allow_nonfinite: let NaN and Inf in the inputs pass.
        projections: of each plan whose method projects deltas; they are shared by the threads.
        own: what is known of each model, of each plan whose method asks for it; shared too.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        readers: Sequence[Reader],
        *,
        device: str = "cpu",
        allow_nonfinite: bool = False,
        projections: Sequence[Projections | None] = (),
        own: Sequence[Own | None] = (),
    ) -> None:
        self.plans, self.readers = plans, readers
        self.projections, self.own = projections or [None] * len(plans), own or [None] * len(plans)
        self.inputs = InputBlocks(plans[0].sources, readers, device, allow_nonfinite)

    def run(
        self, tensors: Sequence[TensorPlan], emits: Sequence[Emit], whole: Sequence[Thresholds] = ()
    ) -> list[dict[str, Any]]:
        """Merge one tensor for every plan.

        Args:
            tensors: the tensor's plan in each of the plans.
            emits: where each result goes.
            whole: for each plan, thresholds over the whole model (``scope: model``).

        Returns:
            For each plan ``distance2``: source -> Σ (result − source)² of the rounded result; ``kept``: role ->
            entries kept of each sparsified delta; ``numel``.

        Raises:
            CheckpointError: a NaN or Inf in an input, or a result that the output dtype cannot hold.
        """
        first, inputs = tensors[0], self.inputs
        if not first.floating:
            return [self._carry(tensor, emit) for tensor, emit in zip(tensors, emits, strict=True)]
        sources = list(dict.fromkeys(s for t in tensors for s in t.sources))
        scopes = whole or [{}] * len(tensors)
        reports: list[dict[str, Any]] = [
            {"distance2": {str(s): 0.0 for s in t.sources}, "kept": {}, "numel": t.numel} for t in tensors
        ]
        combines = [
            self._combiner(*one) for one in zip(self.plans, tensors, scopes, reports, self.projections, self.own, strict=True)
        ]
        rows = {rows_together(method_of(plan), tensor) for plan, tensor in zip(self.plans, tensors, strict=True)}
        row = math.lcm(*rows)
        for start, stop in spans(first.numel, inputs.step(row)):
            n = stop - start
            blocks = {s: inputs.load(first.name, s, start, stop) for s in sources}
            for tensor, combine, emit, report in zip(tensors, combines, emits, reports, strict=True):
                dtype = torch_dtype(tensor.dtype_name)
                result = combine(blocks, start, stop)
                piece = inputs.buffer(("rounded", dtype), n, dtype).copy_(result)
                result = inputs.buffer("mixed", n).copy_(piece)  # what will be read back: the distances are of that
                for s in tensor.sources:
                    difference = torch.sub(blocks[s], result, out=inputs.buffer("difference", n))
                    distance2 = float(torch.dot(difference, difference))
                    report["distance2"][str(s)] += distance2
                    if not math.isfinite(distance2):  # so is an entry of the source or the result: nothing else need look
                        inputs.check_finite(first.name, blocks)
                        self._check_result(tensor, result)
                emit(start, piece if piece.device.type == "cpu" else piece.cpu())
        return reports

    def whole_model_thresholds(self, plan: Plan, tensors: Sequence[TensorPlan]) -> list[Thresholds]:
        """``scope: model``: for each tensor, what a statistic over the whole model says of it."""
        return sparsify.whole_model_thresholds(self.inputs, plan, tensors)

    def _check_result(self, tensor: TensorPlan, result: torch.Tensor) -> None:
        if not self.inputs.allow_nonfinite and not bool(result.isfinite().all()):
            name = DTYPES[tensor.dtype_name][0]
            raise CheckpointError(f"tensor '{tensor.name}' of the result does not fit into {name}", "use dtype: bfloat16")

    # --- what a method does with loaded blocks ---------------------------------------------------------------------

    def _combiner(
        self, plan: Plan, tensor: TensorPlan, whole: Thresholds, report: dict[str, Any], projections: Projections | None,
        own: Own | None,
    ) -> Combine:  # fmt: skip
        method = method_of(plan)
        if not tensor.terms:  # it stays the base's
            return lambda blocks, start, stop: blocks[tensor.base]
        if method.merges_models(plan.recipe.base_model):
            known = None if own is None else own.known(tensor)
            return self._of_models(method.consensus.name, tensor, report, known)
        deltas = [sparse(self.inputs, plan, tensor, term, whole, projections) for term in tensor.terms]
        report["kept"] |= {term.role: delta.kept for term, delta in zip(tensor.terms, deltas, strict=True)}
        return self._of_deltas(method.consensus.name, tensor, deltas, rows_together(method, tensor), report)

    def _of_models(self, name: str, tensor: TensorPlan, report: dict[str, Any], known: Any = None) -> Combine:
        by, terms, inputs = consensus(name), tensor.terms, self.inputs
        reads = [partial(inputs.load, tensor.name, term.source) for term in terms]
        statistic = _statistic(by, _whole(tensor, reads, [1.0] * len(terms), known=known), report)

        def combine(blocks: dict[int, torch.Tensor], start: int, stop: int) -> torch.Tensor:
            parts = [blocks[term.source] for term in terms]
            return by.combine(parts, by.at(statistic, start, stop), lambda what: inputs.buffer(what, stop - start))

        return combine

    def _of_deltas(self, name: str, tensor: TensorPlan, deltas: Sequence[Sparse], row: int, report: dict[str, Any]) -> Combine:
        by, terms, inputs, kept = consensus(name), tensor.terms, self.inputs, report["kept"]
        reads, scales = [delta.read for delta in deltas], [delta.scale for delta in deltas]
        statistic = _statistic(by, _whole(tensor, reads, scales, row), report)
        scale = tensor.options.get("lambda", tensor.options.get("scaling", 1.0))

        def combine(blocks: dict[int, torch.Tensor], start: int, stop: int) -> torch.Tensor:
            n, parts = stop - start, []
            for i, (term, delta) in enumerate(zip(terms, deltas, strict=True)):
                part = torch.sub(blocks[term.source], blocks[origin_of(term)], out=inputs.buffer(("delta", i), n))
                kept[term.role] += delta.apply(part, start)
                parts.append(part)
            mixed = by.combine(parts, by.at(statistic, start, stop), lambda what: inputs.buffer(what, n))
            return add_delta(blocks[tensor.base], mixed, scale, inputs.buffer("mixed", n))

        return combine

    def _carry(self, tensor: TensorPlan, emit: Emit) -> dict[str, Any]:
        """A tensor of integers: the base's, if every model agrees on it."""
        for start, stop in spans(tensor.numel):
            block = self.readers[tensor.base].block(tensor.name, start, stop)
            for term in tensor.terms:
                if not torch.equal(self.readers[term.source].block(tensor.name, start, stop), block):
                    raise CheckpointError(
                        f"{self.plans[0].sources[term.source].name}: integer tensor '{tensor.name}' differs from the base's",
                        "integers cannot be merged; use models that agree on it",
                    )
            emit(start, block)
        return {"distance2": {str(t.source): 0.0 for t in tensor.terms}, "kept": {}, "numel": tensor.numel}


def _whole(
    tensor: TensorPlan, reads: Sequence[ReadBlock], scales: Sequence[float], row: int = 1, known: Any = None
) -> WholeInputs:
    weights, own = [term.weight for term in tensor.terms], [term.options for term in tensor.terms]
    return WholeInputs(reads, tensor.numel, weights, scales, tensor.options, row, tensor.shape, own, known)


def _statistic(by: Consensus, inputs: WholeInputs, report: dict[str, Any]) -> Any:
    statistic = by.statistic(inputs)
    if (share := by.share(statistic)) is not None:
        report["share"] = share
    return statistic
