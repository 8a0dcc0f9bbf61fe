"""What the harness must not do to the program that calls it: print, or leave its own seeds behind."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Iterator

SEED = 1234  # the harness's own, of few-shot examples


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """The harness and its data sets print bars and notes on both streams; what matters comes back as a value or an error."""
    import logging

    import transformers

    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "evaluate")]
    levels = [logger.level for logger in loggers]
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """The harness's seeds within, what was before afterwards: a training that follows draws as if nothing had happened."""
    import numpy as np
    import torch

    python, numeric = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            random.seed(0)
            np.random.seed(SEED)
            torch.manual_seed(SEED)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numeric)
