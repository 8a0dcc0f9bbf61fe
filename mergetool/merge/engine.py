"""Carries out plans: shares the tensors out to threads, and brings the results to a directory or to memory.

A tensor's walk: `merge_to_directory` -> `_run_all` gives it to a thread -> `TensorMerger.run` reads, combines and
rounds it block by block -> `CheckpointWriter.write` puts each block in its place -> `CheckpointWriter.publish`.
Nothing larger than a block is allocated for a tensor, so memory does not grow with the model.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from mergetool.checkpoint.open import open_reader
from mergetool.checkpoint.writer import CheckpointWriter, OutTensor, check_output
from mergetool.checkpoint.zeros import must_hold_weights
from mergetool.errors import CheckpointError, HubError, MergetoolError, RecipeError
from mergetool.hub.fetch import fetch_beside, fetch_weights
from mergetool.hub.stream import Stream
from mergetool.merge import provenance
from mergetool.merge.combine import TensorMerger, Thresholds, torch_dtype
from mergetool.merge.copies import without_copies
from mergetool.merge.plan import Plan, TensorPlan

Progress = Callable[[int, int, str], None]
"""Receives (elements done, elements in all, tensor name); before that (bytes, bytes in all, "fetching FILE")."""


def default_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def merge_tensors(
    plan: Plan, *, threads: int | None = None, device: str = "cpu", allow_nonfinite: bool = False
) -> Iterator[tuple[str, torch.Tensor]]:
    """Merge in memory: yields (name, tensor) one after the other; nothing is written.

    Args:
        plan: from `plan_merge`, for the native engine.
        threads: how many tensors are in work at a time; the values do not depend on it.
        device: where the arithmetic happens; the tensors yielded are on the CPU.
        allow_nonfinite: let NaN and Inf in the inputs pass.

    Yields:
        The name and the merged tensor in the output dtype and shape; a tied head is not repeated.

    Raises:
        MergetoolError: the recipe needs mergekit, which merges to a directory only.
        CheckpointError: an input holds NaN or Inf.
    """
    if plan.engine != "native":
        raise MergetoolError(
            f"this recipe needs mergekit ({plan.reason}) and cannot be merged in memory", "merge to a directory"
        )
    fetch_weights([s.layout for s in plan.sources])
    plan = without_copies(plan)
    mergers = _Mergers([plan], device, allow_nonfinite)

    def one(tensor: TensorPlan, whole: Thresholds) -> tuple[str, torch.Tensor]:
        result = torch.empty(tensor.numel, dtype=torch_dtype(tensor.dtype_name))

        def emit(start: int, block: torch.Tensor) -> None:
            result[start : start + block.numel()] = block

        mergers.mine().run([tensor], [emit], [whole])
        return tensor.name, result.view(tensor.shape)

    threads = threads or default_threads()
    with _single_threaded_torch(), ThreadPoolExecutor(max_workers=threads, thread_name_prefix="merge") as pool:
        scopes = mergers.mine().whole_model_thresholds(plan, plan.tensors)
        ahead: deque[Future[tuple[str, torch.Tensor]]] = deque()
        try:
            for tensor, whole in zip(plan.tensors, scopes, strict=True):
                ahead.append(pool.submit(one, tensor, whole))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def merge_to_directory(plan: Plan, out: str | Path, **options: Any) -> dict[str, Any]:
    """Merge into a new checkpoint directory; resumes an interrupted run of the same plan.

    Args:
        plan: from `plan_merge`.
        out: the directory to make; its name appears only when it is complete.
        **options: as `merge_to_directories`.

    Returns:
        The manifest, as written to mergetool.json.

    Raises:
        OutputError: `out` is taken or cannot be written.
        CheckpointError: an input holds NaN or Inf, or has changed since it was planned.
    """
    return merge_to_directories([plan], [out], **options)[0]


def merge_to_directories(
    plans: Sequence[Plan],
    outs: Sequence[str | Path],
    *,
    threads: int | None = None,
    shard_bytes: int = 5_000_000_000,
    fresh: bool = False,
    device: str = "cpu",
    allow_nonfinite: bool = False,
    low_disk: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Several merges of the same inputs in one reading: each block is read once for all of them.

    Args:
        plans: from `plan_merge`; native ones must have the same inputs in the same order.
        outs: one directory for each plan.
        threads: how many tensors at a time; the bytes do not depend on it. Default: the cores of this process.
        shard_bytes: upper bound of a weight file, in bytes.
        fresh: discard what an interrupted run left.
        device: where the arithmetic happens: cpu, cuda, cuda:1, ...
        allow_nonfinite: let NaN and Inf in the inputs pass.
        low_disk: hold one shard of each model of the Hub at a time, in the working directory; the bytes are the same.
        progress: called after each tensor.

    Returns:
        The manifests.
    """
    fetching = None if progress is None else lambda done, total, file: progress(done, total, f"fetching {file}")
    if any(plan.engine == "mergekit" for plan in plans):
        if low_disk:
            raise RecipeError(f"--low-disk needs the native engine ({plans[0].reason})", "leave it out")
        return [
            provenance.through_mergekit(plan, Path(out), shard_bytes=shard_bytes, device=device, fetching=fetching)
            for plan, out in zip(plans, outs, strict=True)
        ]
    prints = [plan.fingerprint for plan in plans]
    done = [check_output(Path(out), print_) for out, print_ in zip(outs, prints, strict=True)]
    todo = [i for i, ready in enumerate(done) if not ready]
    if todo:
        working = [plans[i] for i in todo]
        layouts = [s.layout for s in working[0].sources]
        if low_disk and any(t.scope == "model" for plan in working for t in plan.tensors):
            raise RecipeError(
                "parameters.scope: model looks at all tensors before it merges one, and --low-disk has one shard at a time",
                "use scope: tensor, or leave out --low-disk",
            )
        if not low_disk:
            fetch_weights(layouts, fetching)
            working = [without_copies(plan) for plan in working]
            for i in range(len(layouts)):
                must_hold_weights(working[0].stored_layout(i))
        fetch_beside(layouts[working[0].sidecar])
        for plan in working:
            if plan.tokenizer is not None:
                fetch_beside(plan.tokenizer)
        with ExitStack() as stack:
            writers = [
                stack.enter_context(
                    CheckpointWriter(Path(outs[i]), _out_tensors(plan), prints[i], shard_bytes=shard_bytes, fresh=fresh)
                )
                for i, plan in zip(todo, working, strict=True)
            ]
            stream = Stream(layouts if low_disk else [], writers[0].directory / "inputs")
            try:
                mergers = _Mergers(working, device, allow_nonfinite, stream.places)
                _run_all(working, writers, mergers, threads or default_threads(), progress, stream)
                stream.close()
                if [plan.fingerprint for plan in working] != [prints[i] for i in todo]:
                    raise CheckpointError("an input changed while it was being merged", "run again when it is complete")
            except HubError:  # what is done is kept: the same command goes on from there
                raise
            except CheckpointError:
                for writer in writers:
                    writer.discard()
                raise
            for i, plan, writer in zip(todo, working, writers, strict=True):
                provenance.finish(plan, writer.directory, writer.complete(), writer.reports, prints[i])
                writer.publish()
    return [provenance.read_manifest(Path(out)) for out in outs]


def _out_tensors(plan: Plan) -> list[OutTensor]:
    return [OutTensor(t.name, t.dtype_name, t.shape, t.numel) for t in plan.tensors]


class _Mergers:
    """One TensorMerger for each thread, over shared readers."""

    def __init__(
        self, plans: Sequence[Plan], device: str, allow_nonfinite: bool, places: dict[Path, Path] | None = None
    ) -> None:
        if any(plan.sources != plans[0].sources for plan in plans):
            raise ValueError("merges in one reading need the same inputs in the same order")
        self._make = lambda: TensorMerger(plans, self.readers, device=device, allow_nonfinite=allow_nonfinite)
        self.readers = [open_reader(s.layout, places) for s in plans[0].sources]
        if (vocabulary := plans[0].vocabulary) is not None:
            self.readers = vocabulary.readers(self.readers, [s.layout for s in plans[0].sources])
        self._own = threading.local()

    def mine(self) -> TensorMerger:
        """This thread's."""
        if not hasattr(self._own, "merger"):
            self._own.merger = self._make()
        return self._own.merger


def _run_all(
    plans: Sequence[Plan], writers: Sequence[CheckpointWriter], mergers: _Mergers, threads: int, progress: Progress | None,
    stream: Stream,
) -> None:  # fmt: skip
    """Every tensor that some output lacks, `threads` at a time; all of them, or shard by shard where they are streamed."""
    rows = list(zip(*(plan.tensors for plan in plans), strict=True))
    missing = [i for i, row in enumerate(rows) if any(row[0].name not in w.reports for w in writers)]
    total = sum(row[0].numel for row in rows)
    ready = total - sum(rows[i][0].numel for i in missing)
    groups: dict[frozenset[Path], list[int]] = {}
    for i in missing:
        groups.setdefault(stream.needed(_files(plans[0], rows[i])), []).append(i)

    def one(i: int) -> TensorPlan:
        tensors = rows[i]
        emits = [_emit(writer, tensor.name) for writer, tensor in zip(writers, tensors, strict=True)]
        reports = mergers.mine().run(tensors, emits, [scope[i] for scope in scopes])
        for writer, tensor, report in zip(writers, tensors, reports, strict=True):
            writer.finished(tensor.name, report)
        return tensors[0]

    with _single_threaded_torch(), ThreadPoolExecutor(max_workers=threads, thread_name_prefix="merge") as pool:
        scopes = [mergers.mine().whole_model_thresholds(plan, plan.tensors) for plan in plans]
        try:
            for files, group in stream.in_order(groups):
                if files and progress is not None:
                    progress(ready, total, "fetching " + ", ".join(sorted(file.name for file in files)))
                stream.hold(files, mergers.readers)
                futures = {pool.submit(one, i) for i in group}
                while futures:
                    finished, futures = wait(futures, return_when=FIRST_EXCEPTION, timeout=0.1)
                    for future in finished:
                        tensor = future.result()
                        ready += tensor.numel
                        if progress is not None:
                            progress(ready, total, tensor.name)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _files(plan: Plan, row: Sequence[TensorPlan]) -> list[Path]:
    """The weight files that one tensor is read from."""
    return plan.files_of(row[0].name, dict.fromkeys(s for tensor in row for s in tensor.sources))


def _emit(writer: CheckpointWriter, name: str) -> Callable[[int, torch.Tensor], None]:
    return lambda start, block: writer.write(name, start, block)


@contextmanager
def _single_threaded_torch() -> Iterator[None]:
    """Tensors are shared out to threads of ours; torch's own would only contend with them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
