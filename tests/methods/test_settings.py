"""Settings that do not go together are refused with the next thing to do."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest

from mergetool.methods.settings import (
    SETTINGS,
    all_kept,
    not_unbiased,
    of_projection,
    of_ties,
    of_updates,
    one_limit,
    probabilities_inside,
)
from mergetool.ops.projection import Rule

PROJECTED = {"kind": "soft", "threshold": None, "energy": None, "rank": None}
UPDATES = {**PROJECTED, "density": 1.0, "alpha": 0.0, "clip": None, "project": "update", "every": 1}


@pytest.mark.parametrize(
    ("fits", "good", "bad"),
    [
        (probabilities_inside, {"density": 0.5, "epsilon": 0.1}, {"density": 0.05}),
        (one_limit, PROJECTED, {"rank": 3}),
        (one_limit, PROJECTED | {"kind": "hard", "rank": 3}, {"rank": None}),
        (one_limit, PROJECTED | {"kind": "hard", "rank": 3}, {"energy": 0.5}),
        (one_limit, PROJECTED | {"kind": "hard", "threshold": 0.5}, {"threshold": 1.0}),
        (all_kept, {"density": 1.0}, {"density": 0.5}),
        (not_unbiased, {"rescale": "none"}, {"rescale": "unbiased"}),
        (of_ties, {"rescale": "none", "statistic": "momentum", "every": 1}, {"every": 5}),
        (of_updates, UPDATES, {"density": 0.5}),
        (of_updates, UPDATES, {"alpha": 0.1}),
        (of_updates, UPDATES, {"project": "gradient", "every": 2}),
    ],
)
def test_what_goes_together_passes_and_what_does_not_is_named(fits, good, bad) -> None:
    assert fits(good) is None
    wrong, hint = fits({**good, **bad})
    assert any(key in wrong + hint or str(value) in wrong for key, value in bad.items())


def test_every_setting_allows_its_own_default() -> None:
    for setting in SETTINGS:
        assert setting.read(setting.default) == setting.default


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (Rule("sofft"), "kind"),  # type: ignore[arg-type]
        (Rule("soft", 0.0), "strength"),
        (Rule("soft", rank=3), "rank"),
        (Rule("hard"), "threshold, energy, rank"),
        (Rule("hard", rank=3, energy=0.9), "energy and rank"),
        (Rule("hard", energy=1.5), "energy"),
        (Rule("hard", threshold=1.0), "threshold"),
        (Rule("hard", rank=-1), "rank"),
    ],
)
def test_rules_that_make_no_sense_say_why(rule: Rule, word: str) -> None:
    assert word in "; ".join(of_projection(asdict(rule)) or ())


def test_rules_that_make_sense_say_nothing() -> None:
    sound = (Rule(), Rule("soft", math.inf), Rule("hard", threshold=0.0))
    assert [of_projection(asdict(rule)) for rule in sound] == [None] * 3
