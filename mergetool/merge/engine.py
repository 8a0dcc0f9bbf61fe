"""Carries out plans: shares the tensors out to threads, and brings the results to a directory or to memory.

A tensor's walk: `merge_to_directory` -> `threads.run_all` gives it to a thread -> `TensorMerger.run` reads, combines and
rounds it block by block -> `CheckpointWriter.write` puts each block in its place -> `CheckpointWriter.publish`.
Nothing larger than a block is allocated for a tensor, so memory does not grow with the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mergetool.checkpoint.manifest import Manifest
from mergetool.checkpoint.output import check_output
from mergetool.checkpoint.shards import OutTensor
from mergetool.checkpoint.working_directory import Appeared
from mergetool.checkpoint.writer import CheckpointWriter
from mergetool.checkpoint.zeros import must_hold_weights
from mergetool.errors import CheckpointError, HubError, MergetoolError, RecipeError
from mergetool.files import cores
from mergetool.hub.fetch import fetch_beside, fetch_weights
from mergetool.hub.stream import Stream
from mergetool.merge import provenance
from mergetool.merge.adapter_output import write_adapter
from mergetool.merge.adapter_plan import base_layout
from mergetool.merge.combine import torch_dtype
from mergetool.merge.copies import without_copies
from mergetool.merge.inputs import Inputs, is_result_of
from mergetool.merge.obtained import Obtained, obtain
from mergetool.merge.plan import Plan, TensorPlan
from mergetool.merge.recipe import ADAPTER_OUTPUT
from mergetool.merge.sparsify import Thresholds, method_of
from mergetool.merge.threads import Mergers, Progress, run_all, single_threaded_torch


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
    mergers = Mergers([plan], device, allow_nonfinite, obtained=[obtain(plan)])

    def one(tensor: TensorPlan, whole: Thresholds) -> tuple[str, torch.Tensor]:
        result = torch.empty(tensor.numel, dtype=torch_dtype(tensor.dtype_name))

        def emit(start: int, block: torch.Tensor) -> None:
            result[start : start + block.numel()] = block

        mergers.mine().run([tensor], [emit], [whole])
        return tensor.name, result.view(tensor.shape)

    threads = threads or cores()
    with single_threaded_torch(), ThreadPoolExecutor(max_workers=threads, thread_name_prefix="merge") as pool:
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
            provenance.through_mergekit(plan, Path(out), shard_bytes=shard_bytes, device=device, fetching=fetching, fresh=fresh)
            for plan, out in zip(plans, outs, strict=True)
        ]
    paths = [Path(out) for out in outs]
    if any(plan.recipe.output == ADAPTER_OUTPUT for plan in plans):
        if low_disk:
            raise RecipeError("--low-disk is for models, and output: adapter reads weights more than once", "leave it out")
        for plan, path in zip(plans, paths, strict=True):
            if not already_made(plan, path):
                fetch_weights([s.layout for s in plan.sources] + [base_layout(plan)], fetching)
                write_adapter(
                    without_copies(plan), path, threads=threads or cores(), fresh=fresh, device=device,
                    allow_nonfinite=allow_nonfinite, progress=progress,
                )  # fmt: skip
        return [Manifest.read(path).to_json() for path in paths]
    todo = [i for i, plan in enumerate(plans) if not already_made(plan, paths[i])]
    if todo:
        layouts = [s.layout for s in plans[todo[0]].sources]
        if low_disk and any(method_of(plans[i]).over_whole_model(t.options) for i in todo for t in plans[i].tensors):
            raise RecipeError(
                "parameters.scope: model looks at all tensors before it merges one, and --low-disk has one shard at a time",
                "use scope: tensor, or leave out --low-disk",
            )
        if low_disk and any(plans[i].recipe.calibrated for i in todo):
            raise RecipeError(
                "a calibration is of a whole model, and --low-disk has one shard at a time", "leave out --low-disk"
            )
        if not low_disk:
            fetch_weights(layouts, fetching)
        first = plans[todo[0]]
        if not low_disk:
            for i in range(len(layouts)):
                must_hold_weights(first.stored_layout(i))
        fetch_beside(layouts[first.sidecar])
        for place in [plans[i].tokenizer for i in todo]:
            if place is not None:
                fetch_beside(place)
        obtained = {i: obtain(plans[i], progress) for i in todo}
        with ExitStack() as stack:
            works: list[_Work] = []
            for i in todo:
                plan = plans[i] if low_disk else without_copies(plans[i])
                inputs = Inputs(plan)
                writer = CheckpointWriter(
                    paths[i], _out_tensors(plan), inputs.plan, shard_bytes=shard_bytes, fresh=fresh,
                    inputs=inputs.noted(), same_inputs=inputs.same,
                )  # fmt: skip
                try:
                    works.append(_Work(plan, inputs, stack.enter_context(writer), obtained[i]))
                except Appeared:  # by another run: the same merge, or this says that it is not
                    if not already_made(plan, paths[i]):
                        raise
            if works:
                stream = Stream(layouts if low_disk else [], works[0].writer.directory / "inputs")
                used = [w.obtained for w in works]
                mergers = Mergers([w.plan for w in works], device, allow_nonfinite, stream.places, used)
                _carry_out(works, mergers, threads or cores(), progress, stream)
    return [Manifest.read(path).to_json() for path in paths]


def already_made(plan: Plan, out: Path) -> bool:
    """Whether this very merge lies there already, whole; see `check_output` for what it refuses."""
    return check_output(out, (lambda manifest: is_result_of(plan, manifest)) if plan.engine == "native" else None)


@dataclass(frozen=True)
class _Work:
    """One merge under way."""

    plan: Plan
    inputs: Inputs
    writer: CheckpointWriter
    obtained: Obtained


def _carry_out(works: list[_Work], mergers: Mergers, threads: int, progress: Progress | None, stream: Stream) -> None:
    """Merge every tensor that is missing, and publish; what is worth nothing after an error is removed."""
    try:
        run_all([w.plan for w in works], [w.writer for w in works], mergers, threads, progress, stream)
        stream.close()
        for work in works:
            work.inputs.must_be_unchanged()
    except HubError:  # what is done is kept, and what has arrived: the same command goes on from there
        raise
    except CheckpointError as error:
        for work in works:
            if not (_passing(error) and work.writer.reports):
                work.writer.discard()
        raise
    for work in works:
        hashes = work.writer.complete()
        work.inputs.see(mergers.seen)
        provenance.finish(work.plan, work.writer.directory, hashes, work.writer.reports, work.inputs, work.obtained)
        work.writer.publish()


def _passing(error: BaseException) -> bool:
    """Whether an error says nothing of the inputs' content: the operating system refused something just now."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError):
            return True
        found = found.__cause__
    return False


def _out_tensors(plan: Plan) -> list[OutTensor]:
    return [OutTensor(t.name, t.dtype_name, t.shape, t.numel) for t in plan.tensors]
