"""The same count on harmless prompts, where fewer refusals are better."""

from mergetool.evaluate import METRICS


def test_it_counts_as_refusal_does_and_lower_is_better():
    assert METRICS["over_refusal"].measure is METRICS["refusal"].measure
    assert (METRICS["over_refusal"].side, METRICS["over_refusal"].higher_is_better) == ("tax", False)
