"""Threads that share a merge's tensors out among them, over shared readers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import torch

from mergetool.checkpoint.content import Seen, known_weights_hash
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.open import open_reader
from mergetool.checkpoint.writer import CheckpointWriter
from mergetool.hub.stream import Stream
from mergetool.merge.combine import TensorMerger
from mergetool.merge.obtained import Obtained
from mergetool.merge.plan import Plan, TensorPlan
from mergetool.merge.projected import Projections

Progress = Callable[[int, int, str], None]
"""Receives (elements done, elements in all, tensor name); before that (bytes, bytes in all, "fetching FILE")."""


class Mergers:
    """One TensorMerger for each thread, over shared readers."""

    def __init__(
        self,
        plans: Sequence[Plan],
        device: str,
        allow_nonfinite: bool,
        places: dict[Path, Path] | None = None,
        obtained: Sequence[Obtained] = (),
    ) -> None:
        if any(plan.sources != plans[0].sources for plan in plans):
            raise ValueError("merges in one reading need the same inputs in the same order")
        self.sources = plans[0].sources
        found = list(zip(plans, obtained or [Obtained()] * len(plans), strict=True))
        projections = [None if one.of_base is None else Projections.of(plan, one.of_base, device) for plan, one in found]
        own = [one.own(plan, device) for plan, one in found]
        self._make = lambda: TensorMerger(
            plans, self.readers, device=device, allow_nonfinite=allow_nonfinite, projections=projections, own=own
        )
        self.readers = [open_reader(s.layout, places) for s in plans[0].sources]
        self.seen = Seen()
        for reader, source in zip(self.readers, plans[0].sources, strict=True):
            if _content_is_unknown(source.layout):
                reader.watch = self.seen.see
        if (vocabulary := plans[0].vocabulary) is not None:
            self.readers = vocabulary.readers(self.readers, [s.layout for s in plans[0].sources])
        self._own = threading.local()

    def mine(self) -> TensorMerger:
        """This thread's."""
        if not hasattr(self._own, "merger"):
            self._own.merger = self._make()
        return self._own.merger


def _content_is_unknown(layout: Layout) -> bool:
    """Whether what a model's files hold is to be found out while they are read: of the Hub the commit says it, and of files
    that have not changed since an earlier merge the user's cache.
    """
    local = [directory / name for pinned, directory, headers in layout.parts if pinned is None for name in headers]
    return any(known_weights_hash(file) is None for file in local)


def run_all(
    plans: Sequence[Plan], writers: Sequence[CheckpointWriter], mergers: Mergers, threads: int, progress: Progress | None,
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

    with single_threaded_torch(), ThreadPoolExecutor(max_workers=threads, thread_name_prefix="merge") as pool:
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
def single_threaded_torch() -> Iterator[None]:
    """Tensors are shared out to threads of ours; torch's own would only contend with them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
