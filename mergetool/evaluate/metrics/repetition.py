"""How much an answer repeats itself."""

from __future__ import annotations

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of, never

WORDS = 4


def repeated(text: str) -> float:
    """1 - distinct / all of the runs of four words; 0 where there is none. Welleck et al. 2020, arXiv 1908.04319: seq-rep-4."""
    words = text.split()
    runs = [tuple(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def repetitions(measured: Measured) -> RowValues:
    """The share of each greedy answer's runs of words that stood in it before."""
    return mean_of(map(repeated, measured.texts))


METRIC = Metric(
    name="repetition",
    side="tax",
    unit="share of 4-grams",
    higher_is_better=False,
    rows="prompts",
    short="repetition",
    about="share of the runs of four words of a greedy answer that stood in it before (seq-rep-4)",
    measure=repetitions,
    reads_answers=True,
    by_default=never,
    order=14,
)
