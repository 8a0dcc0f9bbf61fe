"""Silence of the libraries: what matters goes through `report`, and the terminal belongs to the command line."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, datasets, transformers and TRL draw no bars and print no notes; afterwards all is as before."""
    import datasets
    import transformers

    bars, level = datasets.utils.logging.is_progress_bar_enabled(), transformers.logging.get_verbosity()
    tqdm, trl = os.environ.get("TQDM_DISABLE"), logging.getLogger("trl")
    level_of_trl = trl.level
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    trl.setLevel(logging.ERROR)
    os.environ["TQDM_DISABLE"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between the libraries' own versions
            yield
    finally:
        if bars:
            datasets.enable_progress_bars()
        transformers.logging.set_verbosity(level)
        trl.setLevel(level_of_trl)
        transformers.utils.logging.enable_progress_bar()
        if tqdm is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = tqdm
