"""How different several samples for one prompt are."""

from __future__ import annotations

from collections.abc import Sequence

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of, never

LONGEST = 3
SAMPLES = 4


def distinct(texts: Sequence[str]) -> float:
    """The distinct share of the runs of n words in all texts together, as a mean over n = 1, 2, 3.

    Distinct-n is Li et al. 2016 (arXiv 1510.03055). Taken within the samples for one prompt it is the per-input diversity
    that Kirk et al. 2024 (arXiv 2310.06452) find RLHF to lower, there with another normalisation of length. Where there is
    no run of a length nothing repeats: 1.
    """
    shares = []
    for n in range(1, LONGEST + 1):
        runs = [tuple(words[at : at + n]) for words in map(str.split, texts) for at in range(len(words) - n + 1)]
        shares.append(len(set(runs)) / len(runs) if runs else 1.0)
    return sum(shares) / len(shares)


def diversity(measured: Measured) -> RowValues:
    """The diversity of the samples for each prompt."""
    return mean_of(distinct(texts) for texts in measured.sampled_texts)


METRIC = Metric(
    name="sample_diversity",
    side="tax",
    unit="share of n-grams",
    higher_is_better=True,
    rows="prompts",
    short="diversity of samples",
    about=f"distinct over all runs of one to three words in {SAMPLES} samples for one prompt (temperature 1)",
    measure=diversity,
    samples=SAMPLES,
    by_default=never,
    order=15,
)
