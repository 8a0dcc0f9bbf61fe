"""Every family has a pair of colour and marker of its own, and the study's models have none of them."""

from mergetool.study.report.style import COLOURS, MARKERS, axis_title, colours


def test_families_differ_and_models_are_left_out(summary):
    found = colours(summary)
    assert list(found) == ["o", "run", "run along", "t"]
    assert len(set(found.values())) == len(found)
    pairs = {(COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]) for at in range(len(COLOURS) * len(MARKERS))}
    assert len(pairs) == 72


def test_an_axis_says_metric_entry_and_unit(summary):
    assert axis_title(summary.tax) == "negative log-likelihood on skills (nats/token)"
