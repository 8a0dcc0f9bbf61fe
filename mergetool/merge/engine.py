"""Carries out a plan: reads blocks, applies the operators, hands on rounded blocks.

A tensor's walk: `merge_to_directory` gives each tensor to a thread; `_Worker.run` takes the statistics its sparsifier
needs (`statistics`), then walks it block by block: load and convert to fp32, subtract, sparsify, combine, add, round
once, hand on. Nothing larger than a block is allocated, so memory does not grow with the model.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from mergetool.checkpoint.reader import Reader
from mergetool.checkpoint.writer import CheckpointWriter, OutTensor, check_output
from mergetool.errors import CheckpointError, MergetoolError
from mergetool.merge import provenance
from mergetool.merge.plan import Plan, TensorPlan, Term
from mergetool.ops import consensus, noise, sparsify
from mergetool.ops.blocks import BLOCK, spans

Emit = Callable[[int, torch.Tensor], None]
"""Receives (first element, rounded block in the output dtype); the block is valid during the call."""
Progress = Callable[[int, int, str], None]
"""Receives (elements done, elements in all, tensor name)."""


class _Worker:
    """One thread's buffers. Reused for every tensor: fresh pages would cost more than the arithmetic."""

    def __init__(self, plan: Plan, readers: list[Reader], allow_nonfinite: bool) -> None:
        self.plan, self.readers, self.allow_nonfinite = plan, readers, allow_nonfinite
        assert plan.method is not None
        self.method = plan.method
        self._loaded = [torch.empty(BLOCK) for _ in plan.sources]
        self._deltas = [torch.empty(BLOCK) for _ in range(max((len(t.terms) for t in plan.tensors), default=1))]
        self._mixed = torch.empty(BLOCK)
        self._rounded: dict[torch.dtype, torch.Tensor] = {}

    def run(self, tensor: TensorPlan, emit: Emit) -> dict[str, Any]:
        """Merge one tensor.

        Returns:
            ``distance2``: source -> Σ (result − source)², of the rounded result; ``kept``: the fraction of entries
            kept of each term.

        Raises:
            CheckpointError: a NaN or Inf in an input, or a result that the output dtype cannot hold.
        """
        if not tensor.floating:
            return self._carry(tensor, emit)
        single = [t for t in tensor.terms if t.weight == 1.0]
        if self.method.consensus in ("linear", "slerp") and len(single) == 1 and not any(
            t.weight for t in tensor.terms if t is not single[0]
        ):
            combine = self._copy(single[0])  # weights of 1 and 0: the model itself, byte for byte
        else:
            combine = self._combiner(tensor)
        out_dtype = getattr(torch, _torch_name(tensor.dtype_name))
        rounded = self._rounded.setdefault(out_dtype, torch.empty(BLOCK, dtype=out_dtype))
        distance2 = dict.fromkeys(tensor.sources, 0.0)
        for start, stop in spans(tensor.numel):
            n = stop - start
            blocks = {s: self._load(tensor, s, start, stop) for s in tensor.sources}
            result = combine(blocks, start, stop)
            piece = rounded[:n].copy_(result)
            result = self._mixed[:n].copy_(piece)  # what will be read back, for the distances
            total = float(result.sum())
            if not math.isfinite(total) and not self.allow_nonfinite:
                self._check_result(tensor, result)
            for s, block in blocks.items():
                block.sub_(result)
                distance2[s] += float(torch.dot(block, block))
            emit(start, piece)
        return {"distance2": {str(s): d for s, d in distance2.items()}, "numel": tensor.numel}

    def _load(self, tensor: TensorPlan, source: int, start: int, stop: int) -> torch.Tensor:
        """Flat elements of one source as fp32, checked to be finite."""
        origin = self.plan.sources[source]
        block = self._loaded[source][: stop - start]
        block.copy_(self.readers[source].block(origin.stored_name(tensor.name), start, stop))
        # a sum is NaN or Inf wherever an entry is, at a fortieth of the price of looking at each
        if not self.allow_nonfinite and not math.isfinite(float(block.sum())) and not bool(block.isfinite().all()):
            kind = "NaN" if bool(block.isnan().any()) else "Inf"
            raise CheckpointError(
                f"{origin.name}: tensor '{tensor.name}' holds {kind}", "use another checkpoint, or pass --allow-nonfinite"
            )
        return block

    def _check_result(self, tensor: TensorPlan, result: torch.Tensor) -> None:
        if not bool(result.isfinite().all()):
            name = _torch_name(tensor.dtype_name)
            raise CheckpointError(f"tensor '{tensor.name}' of the result does not fit into {name}", "use dtype: bfloat16")

    # --- what a method does with loaded blocks ---------------------------------------------------------------------

    def _copy(self, term: Term) -> Callable[[dict[int, torch.Tensor], int, int], torch.Tensor]:
        return lambda blocks, start, stop: blocks[term.source]

    def _combiner(self, tensor: TensorPlan) -> Callable[[dict[int, torch.Tensor], int, int], torch.Tensor]:
        """The method's work on one block: {source: fp32 block}, start, stop -> fp32 block."""
        terms = tensor.terms
        if self.method.consensus in ("linear", "slerp"):
            weights = [t.weight for t in terms]
            if self.method.consensus == "slerp":
                weights = self._slerp_weights(tensor)
            elif tensor.normalize:
                weights = consensus.normalized(weights)

            def models(blocks: dict[int, torch.Tensor], start: int, stop: int) -> torch.Tensor:
                return consensus.blend([blocks[t.source] for t in terms], weights, self._mixed[: stop - start])

            return models
        apply = [self._sparsifier(tensor, term) for term in terms]
        weights = [t.weight for t in terms]
        by_sum = consensus.normalized(weights) if tensor.normalize else weights

        def deltas(blocks: dict[int, torch.Tensor], start: int, stop: int) -> torch.Tensor:
            n = stop - start
            parts, factors = [], []
            for i, term in enumerate(terms):
                assert term.origin is not None  # a delta always starts somewhere
                delta = torch.sub(blocks[term.source], blocks[term.origin], out=self._deltas[i][:n])
                factors.append(apply[i](delta, start))
                parts.append(delta)
            if self.method.consensus == "sign":
                for part, weight, factor in zip(parts, weights, factors, strict=True):
                    part.mul_(weight * factor)
                mixed = consensus.sign_consensus(parts, weights, normalize=tensor.normalize)
            else:
                scaled = [w * f for w, f in zip(by_sum, factors, strict=True)]
                mixed = consensus.weighted_sum(parts, scaled, self._mixed[:n])
            return consensus.add_delta(blocks[tensor.base], mixed, tensor.lam, self._mixed[:n])

        return deltas

    def _sparsifier(self, tensor: TensorPlan, term: Term) -> Callable[[torch.Tensor, int], float]:
        """Takes the statistic now; the function returned sparsifies a delta block in place and gives its factor."""
        if self.method.sparsifier == "none" or term.density >= 1.0:
            return lambda delta, start: 1.0
        read = self._delta_reader(tensor, term)
        if self.method.sparsifier == "magnitude":
            k = sparsify.kept_count(term.density, tensor.numel)
            threshold = sparsify.magnitude_threshold(read, tensor.numel, k)

            def sparse(x: torch.Tensor, start: int) -> torch.Tensor:
                return sparsify.trim(x, threshold, start)
        else:
            key = noise.stream_key(self.plan.recipe.seed, 0, term.role, tensor.name)

            def sparse(x: torch.Tensor, start: int) -> torch.Tensor:
                return sparsify.drop(x, key, term.density, start)

        before = after = 0.0
        if tensor.rescale == "l1":
            before = sparsify.l1_norm(read, tensor.numel)
            after = sparsify.l1_norm(lambda a, b: sparse(read(a, b), a), tensor.numel)
        factor = sparsify.rescale_factor(tensor.rescale, term.density, before, after)

        def apply(delta: torch.Tensor, start: int) -> float:
            sparse(delta, start)
            return factor

        return apply

    def _delta_reader(self, tensor: TensorPlan, term: Term) -> Callable[[int, int], torch.Tensor]:
        assert term.origin is not None

        def read(start: int, stop: int) -> torch.Tensor:
            a = self._load(tensor, term.source, start, stop)
            b = self._load(tensor, term.origin, start, stop)
            return torch.sub(a, b, out=self._deltas[0][: stop - start])

        return read

    def _slerp_weights(self, tensor: TensorPlan) -> list[float]:
        a, b = tensor.terms
        dot = norm_a = norm_b = 0.0
        for start, stop in spans(tensor.numel):
            x, y = self._load(tensor, a.source, start, stop), self._load(tensor, b.source, start, stop)
            dot += float(torch.dot(x, y))
            norm_a += float(torch.dot(x, x))
            norm_b += float(torch.dot(y, y))
        return list(consensus.slerp_coefficients(dot, math.sqrt(norm_a), math.sqrt(norm_b), tensor.t))

    def _carry(self, tensor: TensorPlan, emit: Emit) -> dict[str, Any]:
        """A tensor of integers: the base's, if every model agrees on it."""
        for start, stop in spans(tensor.numel):
            block = self.readers[tensor.base].block(tensor.name, start, stop)
            for term in tensor.terms:
                if not torch.equal(self.readers[term.source].block(tensor.name, start, stop), block):
                    raise CheckpointError(
                        f"{self.plan.sources[term.source].name}: integer tensor '{tensor.name}' differs from the base's",
                        "integers cannot be merged; use models that agree on it",
                    )
            emit(start, block)
        return {"distance2": {str(t.source): 0.0 for t in tensor.terms}, "numel": tensor.numel}


def _torch_name(dtype_name: str) -> str:
    from mergetool.checkpoint.layout import DTYPES

    return DTYPES[dtype_name][0]


def merge_tensors(plan: Plan, *, allow_nonfinite: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """Merge in memory: yields (name, tensor) one after the other; nothing is written.

    Args:
        plan: from `plan_merge`, for the native engine.
        allow_nonfinite: let NaN and Inf in the inputs pass.

    Yields:
        The name and the merged tensor in the output dtype and shape; a tied head is not repeated.
    """
    if plan.engine != "native":
        raise MergetoolError(f"this recipe needs mergekit ({plan.reason}) and cannot be merged in memory", "merge to a directory")
    with _single_threaded_torch():
        readers = [Reader(s.layout) for s in plan.sources]
        worker = _Worker(plan, readers, allow_nonfinite)
        for tensor in plan.tensors:
            result = torch.empty(tensor.numel, dtype=getattr(torch, _torch_name(tensor.dtype_name)))

            def emit(start: int, block: torch.Tensor, result: torch.Tensor = result) -> None:
                result[start : start + block.numel()] = block

            worker.run(tensor, emit)
            yield tensor.name, result.view(tensor.shape)


def merge_to_directory(
    plan: Plan,
    out: str | Path,
    *,
    threads: int | None = None,
    shard_bytes: int = 5_000_000_000,
    fresh: bool = False,
    allow_nonfinite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Merge into a new checkpoint directory; resumes an interrupted run of the same plan.

    Args:
        plan: from `plan_merge`.
        out: the directory to make; its name appears only when it is complete.
        threads: how many tensors at a time; the bytes do not depend on it. Default: the cores of this process.
        shard_bytes: upper bound of a weight file, in bytes.
        fresh: discard what an interrupted run left.
        allow_nonfinite: let NaN and Inf in the inputs pass.
        progress: called after each tensor.

    Returns:
        The manifest, as written to mergetool.json.

    Raises:
        OutputError: `out` is taken or cannot be written.
        CheckpointError: an input holds NaN or Inf, or has changed since it was planned.
    """
    out = Path(out)
    if plan.engine == "mergekit":
        return provenance.through_mergekit(plan, out, shard_bytes=shard_bytes)
    fingerprint = plan.fingerprint
    if check_output(out, fingerprint):
        return provenance.read_manifest(out)
    tensors = [OutTensor(t.name, t.dtype_name, t.shape, t.numel) for t in plan.tensors]
    with CheckpointWriter(out, tensors, fingerprint, shard_bytes=shard_bytes, fresh=fresh) as writer:
        try:
            _run_all(plan, writer, threads or len(os.sched_getaffinity(0)), allow_nonfinite, progress)
            if plan.fingerprint != fingerprint:
                raise CheckpointError("an input changed while it was being merged", "run again when it is complete")
        except CheckpointError:
            writer.discard()
            raise
        manifest = provenance.finish(plan, writer.directory, writer.complete(), writer.reports, fingerprint)
        writer.publish()
    return manifest


def _run_all(plan: Plan, writer: CheckpointWriter, threads: int, allow_nonfinite: bool, progress: Progress | None) -> None:
    todo = [t for t in plan.tensors if t.name not in writer.reports]
    total = sum(t.numel for t in plan.tensors)
    done = total - sum(t.numel for t in todo)
    readers = [Reader(s.layout) for s in plan.sources]
    own = threading.local()

    def one(tensor: TensorPlan) -> TensorPlan:
        if not hasattr(own, "worker"):
            own.worker = _Worker(plan, readers, allow_nonfinite)
        report = own.worker.run(tensor, lambda start, block: writer.write(tensor.name, start, block))
        writer.finished(tensor.name, report)
        return tensor

    with _single_threaded_torch(), ThreadPoolExecutor(max_workers=threads, thread_name_prefix="merge") as pool:
        futures = {pool.submit(one, tensor) for tensor in todo}
        try:
            while futures:
                finished, futures = wait(futures, return_when=FIRST_EXCEPTION, timeout=0.1)
                for future in finished:
                    tensor = future.result()
                    done += tensor.numel
                    if progress is not None:
                        progress(done, total, tensor.name)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _single_threaded_torch:  # noqa: N801 — a context manager, used like a function
    """Tensors are shared out to threads of ours; torch's own would only contend with them."""

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self._before)
