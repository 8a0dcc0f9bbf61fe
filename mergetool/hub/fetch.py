"""Files of repositories into the standard cache: only those that are needed, several at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mergetool import hub
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.model_files import needed_beside
from mergetool.checkpoint.place import Place
from mergetool.errors import CheckpointError

Fetching = Callable[[int, int, str], None]
"""Receives (bytes that have arrived, bytes in all, file name)."""
_AT_ONCE = 4


def missing_weights(layouts: Sequence[Layout]) -> list[tuple[hub.Pinned, str, int]]:
    """Weight files that are still on the Hub: (repository, file, bytes), each once."""
    found: dict[tuple[str, str, str], tuple[hub.Pinned, str, int]] = {}
    for layout in layouts:
        for pinned, directory, headers in layout.parts:
            for file, (size, _) in headers.items():
                if isinstance(pinned, hub.Pinned) and not (directory / file).exists():
                    found[pinned.repo, pinned.commit, file] = (pinned, file, size)
    return list(found.values())


def fetch_weights(layouts: Sequence[Layout], progress: Fetching | None = None) -> None:
    """Fetch the weight files of layouts that lie on the Hub and are not in the cache.

    A connection that drops is taken up where it stopped. After a failure the next call fetches the files that are not
    whole; the client keeps no part of a file between processes.

    Args:
        layouts: local ones are left alone.
        progress: told of bytes as they arrive; without it the client draws its own bars, on terminals.

    Raises:
        HubError: the Hub does not answer or refuses, or the disk is full. Files that were under way are still fetched.
    """
    wanted = missing_weights(layouts)
    total, arrived = sum(size for _, _, size in wanted), 0
    lock, stop = threading.Lock(), threading.Event()

    def tell(count: int, file: str) -> None:
        nonlocal arrived
        if stop.is_set():
            raise InterruptedError("Ctrl-C")  # ends this thread's download
        with lock:
            arrived += count
            if progress is not None:
                progress(min(arrived, total), total, file)

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        futures = [pool.submit(fetch_file, pinned, file, tell, draw=progress is None) for pinned, file, _ in wanted]
        try:
            for future in futures:
                future.result()
        except KeyboardInterrupt:
            stop.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def fetch_beside(model: Layout | Place) -> None:
    """Fetch what lies beside the weights: configuration, generation settings, tokenizer, chat template, the index."""
    found = model.place if isinstance(model, Layout) else model
    if found is None or found.pinned is None:
        return
    indices = [file for file in found.files() if file.endswith(".index.json") or file == "adapter_config.json"]
    for file in (*indices, *needed_beside(found)):
        found.path(file)


def fetch_file(
    pinned: hub.Pinned,
    file: str,
    tell: Callable[[int, str], None] | None = None,
    directory: Path | None = None,
    draw: bool = False,
) -> Path:
    """One file of a repository.

    Args:
        pinned: the repository and its commit.
        file: its name.
        tell: called with (bytes that have arrived since the last call, file name); what it raises ends the download.
        directory: where it goes; default: the standard cache.
        draw: let the client draw a bar, on a terminal.

    Raises:
        HubError: the Hub does not answer or refuses, or the disk is full.
    """
    from huggingface_hub import hf_hub_download

    with hub.refusals(f"{pinned.name}/{file}"):
        path = hf_hub_download(
            pinned.repo, file, repo_type=pinned.kind, revision=pinned.commit, local_dir=directory,
            tqdm_class=_bar(file, tell, draw),
        )  # fmt: skip
    found = Path(path)
    expected = (pinned.files or {}).get(file)
    if expected is not None and found.stat().st_size != expected.size:
        raise CheckpointError(
            f"{pinned.name}/{file}: {found.stat().st_size:,} bytes arrived of {expected.size:,}",
            f"remove {found} and run again",
        )
    return found


def _bar(file: str, tell: Callable[[int, str], None] | None, draw: bool) -> Any:
    """The client counts bytes on a bar; ours hands them on."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs if draw else {**kwargs, "disable": True}))

        def update(self, n: float | None = 1) -> bool | None:
            if tell is not None and n:
                tell(int(n), file)
            return super().update(n)

    return Bar
