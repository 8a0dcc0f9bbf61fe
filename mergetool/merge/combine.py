"""One tensor's arithmetic: blocks of the inputs in, rounded blocks of every result out.

A block's walk: load and convert to fp32, subtract, sparsify, combine, add to the base, round once, hand on. The
buffers are reused for every block of every tensor, because fresh pages would cost more than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mergetool.checkpoint.header import DTYPES
from mergetool.checkpoint.reader import Reader
from mergetool.errors import CheckpointError
from mergetool.merge.plan import Plan, TensorPlan, Term
from mergetool.ops import consensus, noise, ranked, sparsify
from mergetool.ops.blocks import BLOCK, ReadBlock, spans

Emit = Callable[[int, torch.Tensor], None]
"""Receives (first element, rounded block in the output dtype); the block is valid during the call."""
Blocks = dict[int, torch.Tensor]
"""Source -> its fp32 block."""
Thresholds = dict[tuple[int, int | None, float], tuple[sparsify.Threshold, int]]
"""(source, origin, density) -> a threshold over the whole model and the model's entries before the tensor."""


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
    """

    def __init__(
        self, plans: Sequence[Plan], readers: Sequence[Reader], *, device: str = "cpu", allow_nonfinite: bool = False
    ) -> None:
        self.plans, self.readers, self.allow_nonfinite = plans, readers, allow_nonfinite
        self.device = torch.device(device)
        self.block = BLOCK if self.device.type == "cpu" else BLOCK << 4  # a GPU wants larger bites than a cache
        self._buffers: dict[Any, torch.Tensor] = {}

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
        first = tensors[0]
        if not first.floating:
            return [self._carry(tensor, emit) for tensor, emit in zip(tensors, emits, strict=True)]
        row = ranked.row_length(first.shape) if any(p.method.sparsifier == "della" for p in self.plans) else 1
        step = max(self.block // row, 1) * row
        sources = list(dict.fromkeys(s for t in tensors for s in t.sources))
        scopes = whole or [{}] * len(tensors)
        reports: list[dict[str, Any]] = [
            {"distance2": {str(s): 0.0 for s in t.sources}, "kept": {}, "numel": t.numel} for t in tensors
        ]
        combines = [
            self._combiner(plan, tensor, row, scope, report["kept"])
            for plan, tensor, scope, report in zip(self.plans, tensors, scopes, reports, strict=True)
        ]
        for start, stop in spans(first.numel, step):
            n = stop - start
            blocks = {s: self._load(first.name, s, start, stop) for s in sources}
            for tensor, combine, emit, report in zip(tensors, combines, emits, reports, strict=True):
                dtype = torch_dtype(tensor.dtype_name)
                result = combine(blocks, start, stop)
                piece = self._buffer(("rounded", dtype), n, dtype).copy_(result)
                result = self._buffer("mixed", n).copy_(piece)  # what will be read back: the distances are of that
                for s in tensor.sources:
                    difference = torch.sub(blocks[s], result, out=self._buffer("difference", n))
                    distance2 = float(torch.dot(difference, difference))
                    report["distance2"][str(s)] += distance2
                    if not math.isfinite(distance2):  # so is an entry of the source or the result: nothing else need look
                        self._check_finite(first.name, blocks)
                        self._check_result(tensor, result)
                emit(start, piece if piece.device.type == "cpu" else piece.cpu())
        return reports

    def _buffer(self, what: Any, n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        held = self._buffers.get(what)
        if held is None or held.numel() < n:
            held = self._buffers[what] = torch.empty(max(n, self.block), dtype=dtype, device=self.device)
        return held[:n]

    def _load(self, name: str, source: int, start: int, stop: int) -> torch.Tensor:
        """Flat elements of one source as fp32."""
        stored = self.plans[0].sources[source].stored_name(name)
        return self._buffer(("loaded", source), stop - start).copy_(self.readers[source].block(stored, start, stop))

    def _check_finite(self, name: str, blocks: Blocks) -> None:
        """Called where a sum over entries is NaN or Inf: it is wherever an entry is, at a fortieth of the price."""
        for source, block in () if self.allow_nonfinite else blocks.items():
            if not bool(block.isfinite().all()):
                kind = "NaN" if bool(block.isnan().any()) else "Inf"
                raise CheckpointError(
                    f"{self.plans[0].sources[source].name}: tensor '{name}' holds {kind}",
                    "use another checkpoint, or pass --allow-nonfinite",
                )

    def _check_result(self, tensor: TensorPlan, result: torch.Tensor) -> None:
        if not self.allow_nonfinite and not bool(result.isfinite().all()):
            name = DTYPES[tensor.dtype_name][0]
            raise CheckpointError(f"tensor '{tensor.name}' of the result does not fit into {name}", "use dtype: bfloat16")

    # --- what a method does with loaded blocks ---------------------------------------------------------------------

    def _combiner(
        self, plan: Plan, tensor: TensorPlan, row: int, whole: Thresholds, kept: dict[str, int]
    ) -> Callable[[Blocks, int, int], torch.Tensor]:
        """The method's work on one block: blocks, start, stop -> the fp32 result."""
        assert plan.method is not None  # a native plan has one
        terms, weights = tensor.terms, [t.weight for t in tensor.terms]
        if plan.method.consensus in ("linear", "slerp"):
            return self._of_models(tensor, plan.method.consensus)
        apply = [self._sparsifier(plan, tensor, term, row, whole, kept) for term in terms]
        by_sum = consensus.normalized(weights) if tensor.normalize else weights
        elect = plan.method.consensus == "sign"

        def combine(blocks: Blocks, start: int, stop: int) -> torch.Tensor:
            n = stop - start
            parts, factors = [], []
            for i, term in enumerate(terms):
                assert term.origin is not None  # a delta always starts somewhere
                delta = torch.sub(blocks[term.source], blocks[term.origin], out=self._buffer(("delta", i), n))
                count, factor = apply[i](delta, start)
                kept[term.role] = kept.get(term.role, 0) + count
                parts.append(delta)
                factors.append(factor)
            if elect:
                for part, weight, factor in zip(parts, weights, factors, strict=True):
                    if weight * factor != 1.0:
                        part.mul_(weight * factor)
                scratch = [self._buffer(what, n) for what in ("sign", "total")]
                mixed = consensus.sign_consensus(parts, weights, normalize=tensor.normalize, scratch=scratch)
            else:
                scaled = [w * f for w, f in zip(by_sum, factors, strict=True)]
                mixed = consensus.weighted_sum(parts, scaled, self._buffer("mixed", n))
            return consensus.add_delta(blocks[tensor.base], mixed, tensor.lam, self._buffer("mixed", n))

        return combine

    def _of_models(self, tensor: TensorPlan, kind: str) -> Callable[[Blocks, int, int], torch.Tensor]:
        """linear and slerp: they combine the models themselves."""
        weights = [t.weight for t in tensor.terms]
        whole = [t for t in tensor.terms if t.weight == 1.0]
        if len(whole) == 1 and sum(w != 0.0 for w in weights) == 1:  # the model itself, byte for byte
            return lambda blocks, start, stop: blocks[whole[0].source]
        if kind == "slerp":
            weights = self._slerp_weights(tensor)
        elif tensor.normalize:
            weights = consensus.normalized(weights)

        def combine(blocks: Blocks, start: int, stop: int) -> torch.Tensor:
            return consensus.blend([blocks[t.source] for t in tensor.terms], weights, self._buffer("mixed", stop - start))

        return combine

    def _sparsifier(
        self, plan: Plan, tensor: TensorPlan, term: Term, row: int, whole: Thresholds, kept: dict[str, int]
    ) -> Callable[[torch.Tensor, int], tuple[int, float]]:
        """Takes the statistic now; the function returned sparsifies a block in place -> (entries kept, factor).

        Where the statistic already says how many are kept, that goes into `kept`, and the blocks report 0.
        """
        method, density, numel = plan.method, term.density, tensor.numel
        assert method is not None
        if method.sparsifier == "none" or density >= 1.0:
            return lambda delta, start: (delta.numel(), 1.0)
        read = self._delta_reader(tensor.name, term)
        key = noise.stream_key(plan.recipe.seed, 0, term.role, tensor.name)
        unbiased = tensor.rescale == "unbiased"
        if method.sparsifier == "magnitude" and tensor.scope == "model":
            bound, before_ = whole[term.source, term.origin, density]

            def apply(x: torch.Tensor, a: int) -> int:
                return int(torch.count_nonzero(sparsify.trim(x, bound, before_ + a)))

        elif method.sparsifier == "magnitude":
            kept[term.role] = sparsify.kept_count(density, numel)
            threshold = sparsify.magnitude_threshold(read, numel, kept[term.role])

            def apply(x: torch.Tensor, a: int) -> int:
                sparsify.trim(x, threshold, a)
                return 0

        elif method.sparsifier == "outliers":
            kept[term.role] = int(density * numel)
            band = sparsify.outlier_thresholds(read, numel, density, term.gamma)

            def apply(x: torch.Tensor, a: int) -> int:
                sparsify.trim_band(x, band, a)
                return 0

        elif method.sparsifier == "della":

            def apply(x: torch.Tensor, a: int) -> int:
                return ranked.drop_ranked(x, key, density, term.epsilon, row, a, unbiased=unbiased)

        else:

            def apply(x: torch.Tensor, a: int) -> int:
                return sparsify.drop(x, key, density, a)

        before = after = 0.0
        if tensor.rescale == "l1":
            step = max(self.block // row, 1) * row
            before = sparsify.l1_norm(read, numel)
            for a, b in spans(numel, step):
                block = read(a, b)
                apply(block, a)
                after += float(block.abs().sum())
        rescale = "none" if method.sparsifier == "della" and unbiased else tensor.rescale
        factor = sparsify.rescale_factor(rescale, density, before, after)
        return lambda delta, start: (apply(delta, start), factor)

    def _delta_reader(self, name: str, term: Term) -> ReadBlock:
        def read(start: int, stop: int) -> torch.Tensor:
            assert term.origin is not None
            blocks = {i: self._load(name, i, start, stop) for i in (term.source, term.origin)}
            delta = torch.sub(blocks[term.source], blocks[term.origin], out=self._buffer("read", stop - start))
            if not math.isfinite(float(delta.sum())):
                self._check_finite(name, blocks)
                # where they are let pass: a NaN is in no order, so it counts as the largest, and stays a NaN where it is kept
                delta.nan_to_num_(nan=math.inf, posinf=math.inf, neginf=-math.inf)
            return delta

        return read

    def _slerp_weights(self, tensor: TensorPlan) -> list[float]:
        a, b = tensor.terms
        dot = norm_a = norm_b = 0.0
        for start, stop in spans(tensor.numel):
            x, y = self._load(tensor.name, a.source, start, stop), self._load(tensor.name, b.source, start, stop)
            dot += float(torch.dot(x, y))
            norm_a += float(torch.dot(x, x))
            norm_b += float(torch.dot(y, y))
            if not math.isfinite(norm_a + norm_b):
                self._check_finite(tensor.name, {a.source: x, b.source: y})
        return list(consensus.slerp_coefficients(dot, math.sqrt(norm_a), math.sqrt(norm_b), tensor.t))

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

    def whole_model_thresholds(self, plan: Plan, tensors: Sequence[TensorPlan]) -> list[Thresholds]:
        """``scope: model``: one threshold for a model's whole task vector, and what it means for each tensor."""
        found: list[Thresholds] = [{} for _ in tensors]
        places = [(i, t) for i, t in enumerate(tensors) if t.floating]
        keys = {(t.source, t.origin, t.density) for _, p in places for t in p.terms if p.scope == "model" and t.density < 1}
        for source, origin, density in sorted(keys, key=str):
            term = Term(source, origin, 1.0, density, "")
            starts, total = [], 0
            for _, tensor in places:
                starts.append(total)
                total += tensor.numel
            readers = [(a, t.numel, self._delta_reader(t.name, term)) for a, (_, t) in zip(starts, places, strict=True)]
            read = _concatenated(readers, lambda n: self._buffer("joined", n))
            threshold = sparsify.magnitude_threshold(read, total, sparsify.kept_count(density, total))
            for a, (i, _) in zip(starts, places, strict=True):
                found[i][source, origin, density] = (threshold, a)
        return found


def _concatenated(parts: list[tuple[int, int, ReadBlock]], buffer: Callable[[int], torch.Tensor]) -> ReadBlock:
    """Tensors, one behind the other, as one flat tensor. `parts`: (first element, elements, reader)."""
    import bisect

    starts = [a for a, _, _ in parts]

    def read(start: int, stop: int) -> torch.Tensor:
        out = buffer(stop - start)
        i, at = bisect.bisect_right(starts, start) - 1, start
        while at < stop:
            first, numel, inner = parts[i]
            end = min(stop, first + numel)
            if end > at:
                out[at - start : end - start] = inner(at - first, end - first)
                at = end
            i += 1
        return out

    return read
