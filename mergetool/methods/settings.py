"""What may be set: options of merge recipes, settings of optimizers, and whether several of them go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mergetool.options import Number, Option, Truth, Word

Values = Mapping[str, Any]
Fits = Callable[[Values], tuple[str, str] | None]
"""Options that were read one by one -> what is wrong with them together and the next thing to do, or None."""

# --- options of merge recipes ---------------------------------------------------------------------------------------

WEIGHT = Number("weight", per_model=True, required=True)
T = Number("t", required=True)
NORMALIZE = Truth("normalize", False)
LAMBDA = Number("lambda", 1.0)
SCALING = Number("scaling", 1.0)  # the same where mergekit ignores `lambda`
INT8_MASK = Option("int8_mask")  # saves mergekit memory; taken so that its recipes run, and nothing here depends on it
DENSITY = Number("density", 1.0, per_model=True, low=0.0, high=1.0)
GAMMA = Number("gamma", 0.01, per_model=True, low=0.0, high=1.0)
EPSILON = Number("epsilon", 0.15, per_model=True, low=0.0, high=0.5)
FLOOR = Number("epsilon", 1e-5, low=0.0)  # of RAM: an entry of a delta is a change where it is larger
RESCALES = ("unbiased", "l1", "none")
RESCALE = Word("rescale", "none", words=RESCALES, true="l1", false="none")  # true is mergekit's own rule, the L1 norm
SCOPE = Word("scope", "tensor", words=("tensor", "model"))


def probabilities_inside(values: Values) -> tuple[str, str] | None:
    """DELLA keeps entries with probabilities up to epsilon from the density."""
    density, epsilon = values["density"], values["epsilon"]
    if density >= 1.0 or (density - epsilon > 0.0 and density + epsilon < 1.0):
        return None
    return f"density {density:g} ± epsilon {epsilon:g} leaves (0, 1)", "choose a smaller epsilon"


STRENGTH = Number("strength", 10.0, per_model=True, low=0.0, above=True, infinite=True, what="above 0, or infinity")
PROJECTION_OPTIONS = (
    Word("kind", "soft", per_model=True, words=("soft", "hard")),
    STRENGTH,
    Number("threshold", per_model=True, low=0.0, high=1.0, unset=True, what="a share of the largest eigenvalue, in [0, 1]"),
    Number("energy", per_model=True, low=0.0, high=1.0, above=True, unset=True, what="a share of the trace, in (0, 1]"),
    Number("rank", per_model=True, low=0, whole=True, unset=True, what="a number of eigenvectors, 0 or more"),
)


def one_limit(values: Values) -> tuple[str, str] | None:
    """A hard projection needs one limit; a soft one has its strength and no limit."""
    given = [name for name in ("threshold", "energy", "rank") if values[name] is not None]
    if values["kind"] == "soft" and given:
        return f"{given[0]} is {values[given[0]]} and kind is soft", f"{given[0]} belongs to kind: hard; soft has strength"
    if values["kind"] == "hard" and len(given) != 1:
        return f"kind hard has {' and '.join(given) or 'no limit'}", "give one of threshold, energy, rank"
    if values["threshold"] == 1:
        return "threshold is 1", "it is below 1: no eigenvalue is larger than the largest"
    return None


def of_projection(values: Values) -> tuple[str, str] | None:
    """What is wrong with a projection's settings, one by one or together, wherever they come from."""
    for option in PROJECTION_OPTIONS:
        try:
            option.read(values[option.name])
        except ValueError:
            return f"{option.name} is {values[option.name]}", f"it is {option.what or option.must}"
    return one_limit(values)


# --- settings of optimizers -----------------------------------------------------------------------------------------

STATISTIC = Word("statistic", "delta", words=("delta", "momentum"))
"""What OnTIES ranks the entries of an update by: their own magnitude, or that of Adam's m (MoFO)."""


SETTINGS: tuple[Option, ...] = (
    Number("density", 5e-4, low=0.0, high=1.0, above=True, what="the fraction of entries kept, in (0, 1]"),
    Number("alpha", 0.0, low=0.0, high=1.0, what="the weight of the SFT delta at each merge, in [0, 1]"),
    Option("alpha_total", what="the weight of the SFT delta over the run"),
    Option("total_steps", what="the steps of the run"),
    Number("every", 1, low=1, whole=True, what="the number of steps between merges, 1 or more"),
    Word("rescale", "none", words=RESCALES),
    Word("tau_mask", "resample", words=("resample", "fixed")),
    Word("elect", "weighted", words=("weighted", "unweighted")),
    Number("clip", low=0.0, above=True, unset=True, what="the largest magnitude of a delta's entry, or None"),
    Option("seed", 0, what="the seed of masks and rounding"),
    Word("rounding", "stochastic", words=("stochastic", "nearest")),
)
"""What every parameter group has, whatever the method."""

EVERY = frozenset(["every", "rounding", "compile"])
MERGES = EVERY | {"alpha", "alpha_total", "storage"}


def all_kept(values: Values) -> tuple[str, str] | None:
    return None if values["density"] == 1.0 else ("OnLinear keeps every entry", "drop density, or use OnDARE or OnTIES")


def not_unbiased(values: Values) -> tuple[str, str] | None:
    if values["rescale"] != "unbiased":
        return None
    return "OnTIES keeps the largest entries, and no factor makes that unbiased", "use 'none' or 'l1'"


def of_ties(values: Values) -> tuple[str, str] | None:
    if values.get(STATISTIC.name, STATISTIC.default) != STATISTIC.default and values["every"] != 1:
        return (
            f"{STATISTIC.name} is {values[STATISTIC.name]} and every is {values['every']}",
            "momentum ranks a step's update: every: 1",
        )
    return not_unbiased(values)


def of_updates(values: Values) -> tuple[str, str] | None:
    """OnNullSpace keeps every entry of an update and adds nothing to it."""
    for name, only in (("density", 1.0), ("alpha", 0.0), ("clip", None)):
        if values[name] != only:
            return f"{name} is {values[name]}", f"OnNullSpace has no {name}: leave it out"
    if values["project"] == "gradient" and values["every"] != 1:
        return f"project is gradient and every is {values['every']}", "a gradient is projected at every step: every: 1"
    return one_limit(values)
