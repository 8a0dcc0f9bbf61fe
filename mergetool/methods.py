"""The table of methods. A row says what is done to each delta, how the deltas are combined, what may be set, and where
the method is used: offline on checkpoints, online in an optimizer.

Everything that the program does with a method it reads from its row, and nothing else compares its name. The arithmetic
stands in `mergetool/ops/sparsifiers/NAME.py`, `mergetool/ops/consensus/NAME.py` and, for the optimizers,
`mergetool/optim/operators/NAME.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mergetool.options import Number, Option, Truth, Word

Values = Mapping[str, Any]
Fits = Callable[[Values], tuple[str, str] | None]
"""Options that were read one by one -> what is wrong with them together and the next thing to do, or None."""


# --- the parts of a row ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SparsifierRow:
    """What is done to each delta before they are combined.

    Attributes:
        name: its file in `mergetool/ops/sparsifiers`.
        options: what may be set.
        random: whether random numbers decide.
        gathers: whether its statistic holds a part of a tensor in memory.
        fits: whether the options go together.
    """

    name: str
    options: tuple[Option, ...] = ()
    random: bool = False
    gathers: bool = False
    fits: Fits = lambda values: None


@dataclass(frozen=True, slots=True)
class ConsensusRow:
    """How the deltas, or the models themselves, become one.

    Attributes:
        name: its file in `mergetool/ops/consensus`.
        options: what may be set.
        of_models: whether it combines the models themselves, so that nothing is a delta of anything.
        pair: whether it takes base_model and one other model, in this order.
        base_too: whether base_model is one of the models that are combined.
        models: the fewest and the most models that it takes beside base_model; None for any number.
        calibrated: whether it reads what the maps of each model read: each has a calibration of its own.
        gathers: whether its statistic holds a part of a tensor in memory.
    """

    name: str
    options: tuple[Option, ...] = ()
    of_models: bool = False
    pair: bool = False
    base_too: bool = False
    models: tuple[int, int | None] = (1, None)
    calibrated: bool = False
    gathers: bool = False


@dataclass(frozen=True, slots=True)
class ProjectionRow:
    """What is taken from each delta before it is sparsified: the part that calibration rows would see.

    Attributes:
        options: which projection, see `mergetool.ops.projection.Rule`.
        fits: whether the options go together.
    """

    options: tuple[Option, ...]
    fits: Fits


@dataclass(frozen=True, slots=True)
class Online:
    """A method's use at every K-th step of an optimizer.

    Attributes:
        name: `optimizer.method`, and the file in `mergetool/optim/operators`.
        optimizer: the class in `mergetool.optim`.
        word: `merging.method` in an align recipe.
        knobs: what an align recipe may set, beside what all of them have.
        defaults: settings whose defaults are not those of `SETTINGS`.
        points: whether the reference is θ_s itself, which θ is moved toward after AdamW's own step, and not τ_s.
        bounded: whether the planned share of the reference is an upper bound of what is merged.
        merges: what is merged, in words.
        fits: whether a group's settings go together.
        own: settings beside `SETTINGS`.
        later: settings that a group has where they are not the default alone: a state_dict keeps the keys that it had without.
        calibrated: whether it reads a calibration, and no reference.
    """

    name: str
    optimizer: str
    word: str
    knobs: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] | None = None
    points: bool = False
    bounded: bool = False
    merges: str = "the SFT delta"
    fits: Fits = lambda values: None
    own: tuple[Option, ...] = ()
    later: tuple[Option, ...] = ()
    calibrated: bool = False

    @property
    def options(self) -> tuple[Option, ...]:
        """What every parameter group has."""
        return (*SETTINGS, *self.own)

    @property
    def settings(self) -> dict[str, Any]:
        """setting -> default, of every parameter group."""
        return {setting.name: setting.default for setting in self.options} | dict(self.defaults or {})


@dataclass(frozen=True, slots=True)
class Method:
    """One row.

    Attributes:
        name: `merge_method` in a merge recipe.
        sparsifier, consensus: what is done.
        options: what a recipe's `parameters` may set, with this method's defaults.
        needs_base: whether `base_model` is required.
        source: the paper, and the equation or section.
        use: one line on when to use it.
        online: its use in an optimizer; None where it has none.
        projection: what is taken from each delta first; None where nothing is. Such a method needs a calibration.
    """

    name: str
    sparsifier: SparsifierRow
    consensus: ConsensusRow
    options: tuple[Option, ...]
    needs_base: bool
    source: str
    use: str
    online: Online | None = None
    projection: ProjectionRow | None = None

    @property
    def parameters(self) -> frozenset[str]:
        """Names that a recipe may set, per model or for all."""
        return frozenset(option.name for option in self.options)

    @property
    def deterministic(self) -> bool:
        """True where no random numbers take part."""
        return not self.sparsifier.random

    @property
    def of_models(self) -> bool:
        """True where the models themselves are combined, not deltas."""
        return self.consensus.of_models

    @property
    def projects(self) -> bool:
        """True where deltas are projected, so that a calibration of the base is needed."""
        return self.projection is not None

    def fits(self, values: Values) -> tuple[str, str] | None:
        """Whether a delta's options go together: what is wrong and the next thing to do, or None."""
        wrong = None if self.projection is None else self.projection.fits(values)
        return wrong or self.sparsifier.fits(values)

    def merges_models(self, base: str | None) -> bool:
        """True where the models themselves are combined and not deltas, given the recipe's `base_model`."""
        return self.of_models or (not self.needs_base and base is None)

    def over_whole_model(self, values: Values) -> bool:
        """True where the sparsifier's statistic is taken over a model's whole task vector, not tensor by tensor."""
        return values.get(_SCOPE.name) == "model"


# --- options of merge recipes ---------------------------------------------------------------------------------------

_WEIGHT = Number("weight", per_model=True, required=True)
_T = Number("t", required=True)
_NORMALIZE = Truth("normalize", False)
_LAMBDA = Number("lambda", 1.0)
_INT8_MASK = Option("int8_mask")  # saves mergekit memory; taken so that its recipes run, and nothing here depends on it
_DENSITY = Number("density", 1.0, per_model=True, low=0.0, high=1.0)
_GAMMA = Number("gamma", 0.01, per_model=True, low=0.0, high=1.0)
_EPSILON = Number("epsilon", 0.15, per_model=True, low=0.0, high=0.5)
_FLOOR = Number("epsilon", 1e-5, low=0.0)  # of RAM: an entry of a delta is a change where it is larger
_RESCALES = ("unbiased", "l1", "none")
_RESCALE = Word("rescale", "none", words=_RESCALES, true="l1", false="none")  # true is mergekit's own rule, the L1 norm
_SCOPE = Word("scope", "tensor", words=("tensor", "model"))


def _probabilities_inside(values: Values) -> tuple[str, str] | None:
    """DELLA keeps entries with probabilities up to epsilon from the density."""
    density, epsilon = values["density"], values["epsilon"]
    if density >= 1.0 or (density - epsilon > 0.0 and density + epsilon < 1.0):
        return None
    return f"density {density:g} ± epsilon {epsilon:g} leaves (0, 1)", "choose a smaller epsilon"


_STRENGTH = Number("strength", 10.0, per_model=True, low=0.0, above=True, infinite=True, what="above 0, or infinity")
_PROJECTION = (
    Word("kind", "soft", per_model=True, words=("soft", "hard")),
    _STRENGTH,
    Number("threshold", per_model=True, low=0.0, high=1.0, unset=True, what="a share of the largest eigenvalue, in [0, 1]"),
    Number("energy", per_model=True, low=0.0, high=1.0, above=True, unset=True, what="a share of the trace, in (0, 1]"),
    Number("rank", per_model=True, low=0, whole=True, unset=True, what="a number of eigenvectors, 0 or more"),
)


def _one_limit(values: Values) -> tuple[str, str] | None:
    """A hard projection needs one limit; a soft one has its strength and no limit."""
    given = [name for name in ("threshold", "energy", "rank") if values[name] is not None]
    if values["kind"] == "soft" and given:
        return f"{given[0]} is {values[given[0]]} and kind is soft", f"{given[0]} belongs to kind: hard; soft has strength"
    if values["kind"] == "hard" and len(given) != 1:
        return f"kind hard has {' and '.join(given) or 'no limit'}", "give one of threshold, energy, rank"
    return None


PROJECTION = ProjectionRow(_PROJECTION, _one_limit)

NONE = SparsifierRow("none")
RANDOM = SparsifierRow("random", (_DENSITY, _RESCALE), random=True)
MAGNITUDE = SparsifierRow("magnitude", (_DENSITY, _RESCALE, _SCOPE), gathers=True)
MAGNITUDE_BY_TENSOR = SparsifierRow("magnitude", (_DENSITY, _RESCALE), gathers=True)
OUTLIERS = SparsifierRow("outliers", (_DENSITY, _RESCALE, _GAMMA), gathers=True)
DELLA = SparsifierRow("della", (_DENSITY, _RESCALE, _EPSILON), random=True, fits=_probabilities_inside)

LINEAR = ConsensusRow("linear", (_WEIGHT, _NORMALIZE), of_models=True)
SLERP = ConsensusRow("slerp", (_T,), of_models=True, pair=True)
NUSLERP = ConsensusRow(
    "nuslerp", (_WEIGHT, Truth("nuslerp_flatten", True), Truth("nuslerp_row_wise", False)), models=(2, 2)
)  # fmt: skip
MULTISLERP = ConsensusRow("multislerp", (_WEIGHT, Truth("normalize_weights", True), Number("eps", 1e-8, low=0.0)))
KARCHER = ConsensusRow(
    "karcher", (Number("max_iter", 10, low=0, whole=True), Number("tol", 1e-5, low=0.0, above=True)),
    of_models=True, base_too=True,
)  # fmt: skip
MODEL_STOCK = ConsensusRow("model_stock", (Truth("filter_wise", False),), models=(2, None))
NEARSWAP = ConsensusRow("nearswap", (_T,), of_models=True, pair=True)
ARCEE_FUSION = ConsensusRow("arcee_fusion", of_models=True, pair=True, gathers=True)
PASSTHROUGH = ConsensusRow("passthrough", (Number("scale", 1.0, per_model=True),), of_models=True, models=(1, 1))
SCE = ConsensusRow("sce", (Number("select_topk", 1.0, low=0.0), _INT8_MASK), gathers=True)
RAM = ConsensusRow("ram", (_FLOOR,))
RAM_PLUS = ConsensusRow("ramplus_tl", (_FLOOR, Number("r", 0.1), Number("alpha", 0.2, low=0.0)))
REGMEAN = ConsensusRow(
    "regmean",
    (
        Number("weight", 1.0, per_model=True, low=0.0, above=True, what="above 0"),
        Number("off_diagonal", 0.9, low=0.0, high=1.0),
    ),
    of_models=True, calibrated=True,
)  # fmt: skip
SUM = ConsensusRow("sum", (_WEIGHT, _LAMBDA, _NORMALIZE, _INT8_MASK))
SIGN = ConsensusRow("sign", (_WEIGHT, _LAMBDA, _NORMALIZE, _INT8_MASK))


# --- settings of optimizers -----------------------------------------------------------------------------------------

SETTINGS: tuple[Option, ...] = (
    Number("density", 5e-4, low=0.0, high=1.0, above=True, what="the fraction of entries kept, in (0, 1]"),
    Number("alpha", 0.0, low=0.0, high=1.0, what="the weight of the SFT delta at each merge, in [0, 1]"),
    Option("alpha_total", what="the weight of the SFT delta over the run"),
    Option("total_steps", what="the steps of the run"),
    Number("every", 1, low=1, whole=True, what="the number of steps between merges, 1 or more"),
    Word("rescale", "none", words=_RESCALES),
    Word("tau_mask", "resample", words=("resample", "fixed")),
    Word("elect", "weighted", words=("weighted", "unweighted")),
    Number("clip", low=0.0, above=True, unset=True, what="the largest magnitude of a delta's entry, or None"),
    Option("seed", 0, what="the seed of masks and rounding"),
    Word("rounding", "stochastic", words=("stochastic", "nearest")),
)
"""What every parameter group has, whatever the method."""

_EVERY = frozenset(["every", "rounding", "compile"])
_MERGES = _EVERY | {"alpha", "alpha_total", "storage"}


def _all_kept(values: Values) -> tuple[str, str] | None:
    return None if values["density"] == 1.0 else ("OnLinear keeps every entry", "drop density, or use OnDARE or OnTIES")


def _not_unbiased(values: Values) -> tuple[str, str] | None:
    if values["rescale"] != "unbiased":
        return None
    return "OnTIES keeps the largest entries, and no factor makes that unbiased", "use 'none' or 'l1'"


def _of_ties(values: Values) -> tuple[str, str] | None:
    if values.get(STATISTIC.name, STATISTIC.default) != STATISTIC.default and values["every"] != 1:
        return (
            f"{STATISTIC.name} is {values[STATISTIC.name]} and every is {values['every']}",
            "momentum ranks a step's update: every: 1",
        )
    return _not_unbiased(values)


STATISTIC = Word("statistic", "delta", words=("delta", "momentum"))
"""What OnTIES ranks the entries of an update by: their own magnitude, or that of Adam's m (MoFO)."""

ON_DARE = Online(
    "dare", "OnDARE", "ondare",
    knobs=frozenset(["density", "rescale", "tau_mask", "clip", "seed"]), defaults={"rescale": "unbiased"},
)  # fmt: skip
ON_TIES = Online(
    "ties", "OnTIES", "onties",
    knobs=frozenset(["density", "rescale", "elect", "statistic", "clip", "seed"]), bounded=True, fits=_of_ties,
    later=(STATISTIC,),
)  # fmt: skip


def _of_updates(values: Values) -> tuple[str, str] | None:
    """OnNullSpace keeps every entry of an update and adds nothing to it."""
    for name, only in (("density", 1.0), ("alpha", 0.0), ("clip", None)):
        if values[name] != only:
            return f"{name} is {values[name]}", f"OnNullSpace has no {name}: leave it out"
    if values["project"] == "gradient" and values["every"] != 1:
        return f"project is gradient and every is {values['every']}", "a gradient is projected at every step: every: 1"
    return _one_limit(values)


ON_NULL_SPACE = Online(
    "null_space", "OnNullSpace", "onnullspace",
    knobs=frozenset(["kind", "strength", "threshold", "energy", "rank", "project", "only", "skip", "seed"]),
    defaults={"density": 1.0},
    merges="what the calibration rows do not see of each update", fits=_of_updates, calibrated=True,
    own=(
        *_PROJECTION, Word("project", "update", words=("update", "gradient")),
        Option("only", what="parts of names, with commas between them: of the tensors that are projected"),
        Option("skip", what="parts of names, with commas between them: of tensors that are not projected"),
    ),
)  # fmt: skip
ON_LINEAR = Online(
    "linear", "OnLinear", "onlinear",
    knobs=frozenset(["seed"]), defaults={"density": 1.0}, points=True, merges="the way back to the SFT model", fits=_all_kept,
)  # fmt: skip


# --- the rows -------------------------------------------------------------------------------------------------------


def row(
    name: str, sparsifier: SparsifierRow, consensus: ConsensusRow, *, source: str, use: str, needs_base: bool = True,
    online: Online | None = None, projection: ProjectionRow | None = None, **defaults: Any,
) -> Method:  # fmt: skip
    """A row; `defaults` are those options whose defaults are its own."""
    options = (*consensus.options, *sparsifier.options, *(projection.options if projection else ()))
    if unknown := set(defaults) - {option.name for option in options}:
        raise ValueError(f"{name} has no option '{min(unknown)}'")
    options = tuple(replace(o, default=defaults[o.name]) if o.name in defaults else o for o in options)
    return Method(name, sparsifier, consensus, options, needs_base, source, use, online, projection)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        row(
            "linear", NONE, LINEAR, normalize=True, needs_base=False, online=ON_LINEAR,
            source="WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903, Eq. 1",
            use="first thing to try: a straight line between SFT and RLHF, one number to choose",
        ),
        row(
            "slerp", NONE, SLERP,
            source="Shoemake 1985, per tensor as in mergekit",
            use="two models far apart whose norms should not shrink on the way",
        ),
        row(
            "task_arithmetic", NONE, SUM,
            source="Ilharco et al. 2022, arXiv 2212.04089, §2",
            use="adding what several fine-tunings learned, when they hardly overlap",
        ),
        row(
            "dare_linear", RANDOM, SUM, rescale="unbiased", online=ON_DARE,
            source="DARE, Yu et al. 2023, arXiv 2311.03099, Eq. 2-4",
            use="several SFT models with small deltas: most entries can be dropped at random",
        ),
        row(
            "dare_ties", RANDOM, SIGN, rescale="unbiased",
            source="DARE (arXiv 2311.03099) with the sign election of TIES (arXiv 2306.01708)",
            use="as dare_linear, where the models pull some entries in opposite directions",
        ),
        row(
            "ties", MAGNITUDE, SIGN, normalize=True, online=ON_TIES,
            source="TIES-Merging, Yadav et al. 2023, arXiv 2306.01708, §3, Algorithm 1",
            use="models that disagree: keep the largest entries, elect a sign, drop who disagrees",
        ),
        row(
            "breadcrumbs", OUTLIERS, SUM,
            source="Model Breadcrumbs, Davari & Belilovsky 2023, arXiv 2312.06795, §3",
            use="many tasks: drop the small entries and also the largest outliers",
        ),
        row(
            "breadcrumbs_ties", OUTLIERS, SIGN,
            source="Model Breadcrumbs (arXiv 2312.06795) with the sign election of TIES",
            use="as breadcrumbs, where the models disagree in sign",
        ),
        row(
            "della", DELLA, SIGN, normalize=True, rescale="unbiased",
            source="DELLA-Merging, Deep et al. 2024, arXiv 2406.11617, §3",
            use="as dare_ties, where large entries should be kept more often than small ones",
        ),
        row(
            "della_linear", DELLA, SUM, rescale="unbiased",
            source="DELLA-Merging (arXiv 2406.11617) without sign election",
            use="as dare_linear, where large entries should be kept more often than small ones",
        ),
        row(
            "null_space", NONE, SUM, projection=PROJECTION, online=ON_NULL_SPACE,
            source="the projection of NSPO, arXiv 2512.11391, and its soft form, docs/null-space.md",
            use="you have rows whose answers should stay: takes from the RLHF delta what those rows would see",
        ),
        row(
            "null_space_dare", RANDOM, SUM, projection=PROJECTION, rescale="unbiased",
            source="null_space, then DARE (arXiv 2311.03099)",
            use="as null_space, for several models whose deltas overlap",
        ),
        row(
            "null_space_ties", MAGNITUDE_BY_TENSOR, SIGN, projection=PROJECTION, normalize=True,
            source="null_space, then TIES (arXiv 2306.01708)",
            use="as null_space, for several models that disagree in sign",
        ),
        row(
            "regmean", NONE, REGMEAN, needs_base=False,
            source="RegMean, Jin et al. 2023, arXiv 2212.09849, Eq. 2",
            use="you have rows of each model: every map comes closest to what each model's own map does on its own rows",
        ),
        row(
            "nuslerp", NONE, NUSLERP, needs_base=False,
            source="mergekit 0.1.5; Shoemake 1985 on task vectors, whole, by row or by column",
            use="slerp of two models by weights, or of their task vectors where base_model is given",
        ),
        row(
            "multislerp", NONE, MULTISLERP, needs_base=False,
            source="Multi-SLERP, goddard.blog/posts/multislerp-wow-what-a-cool-idea",
            use="slerp for more than two models, or for their task vectors where base_model is given",
        ),
        row(
            "karcher", NONE, KARCHER, needs_base=False,
            source="Karcher 1977: the mean on the sphere; for models arXiv 2603.04972",
            use="several models, no base and no weights to choose",
        ),
        row(
            "model_stock", NONE, MODEL_STOCK,
            source="Model Stock, Jang et al. 2024, arXiv 2403.19522",
            use="several fine-tunings of one base: the share of their mean follows from the angles between them",
        ),
        row(
            "sce", NONE, SCE,
            source="FuseChat 3, Wan et al. 2024, arXiv 2408.07990: select, calculate, erase",
            use="several models, weighted by the size of their deltas where they differ most",
        ),
        row(
            "ram", NONE, RAM,
            source="Reinforced Agent Merging, arXiv 2601.13572",
            use="RL agents with sparse deltas: what one alone changed is kept whole, what several changed is averaged",
        ),
        row(
            "ramplus_tl", NONE, RAM_PLUS,
            source="RAM+ (arXiv 2601.13572), its factors taken tensor by tensor as in mergekit",
            use="as ram, where what one model alone changed should count for more",
        ),
        row(
            "nearswap", NONE, NEARSWAP,
            source="alchemonaut 2024 (QuartetAnemoi): min(1, t/|a − b|) of the way to b",
            use="the base model, pulled toward another by at most t an entry",
        ),
        row(
            "arcee_fusion", NONE, ARCEE_FUSION,
            source="Arcee Fusion, as in mergekit 0.1.5",
            use="the entries of a second model that matter most, put into the base model",
        ),
        row(
            "passthrough", NONE, PASSTHROUGH, needs_base=False,
            source="mergekit 0.1.5",
            use="with slices: a deeper or shallower model of the layers of one or several",
        ),
    )
}  # fmt: skip
"""`merge_method` -> its row."""

ONLINE: dict[str, Online] = {m.online.name: m.online for m in METHODS.values() if m.online is not None}
"""`optimizer.method` -> its use online. The row that it belongs to is its offline partner: what a run with K = T does."""


# --- what an align recipe may ask for -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Training:
    """What `merging.method` of an align recipe may be, of the methods that merge; baselines are in align/baselines.py.

    Attributes:
        word: that.
        knobs: what else `merging` may set; what a recipe leaves out keeps the optimizer's own default.
        online: the operator.
        given: settings that the word stands for.
    """

    word: str
    knobs: frozenset[str]
    online: Online
    given: Mapping[str, Any] | None = None

    @property
    def mixes(self) -> bool:
        """True where a share of the SFT model, or of its delta, is merged: `alpha` then says how much."""
        return "alpha" in self.knobs

    @property
    def merges_delta(self) -> bool:
        """True where that is τ_s = sft − base, so that a base is needed wherever alpha is not 0."""
        return self.mixes and not self.online.points

    @property
    def merges(self) -> str:
        """What is merged, in words."""
        return self.online.merges

    @property
    def at_most(self) -> str:
        """ "at most ", where the planned amount is a bound."""
        return "at most " if self.online.bounded else ""


TRAININGS: dict[str, Training] = {
    training.word: training
    for training in (
        *(Training(o.word, o.knobs | (_EVERY if o.calibrated else _MERGES), o) for o in ONLINE.values()),
        # ChildTuning-F: a random mask on every step and no SFT delta, that is OnDARE with alpha 0.
        Training(
            "childtuning", frozenset(["density", "every", "clip", "seed", "rounding", "compile"]), ON_DARE,
            given={"alpha": 0.0, "rescale": "unbiased"},
        ),
        # NSPO (arXiv 2512.11391) as its code has it: MLPs alone, eigenvectors above 5e-5 of the largest eigenvalue.
        Training(
            "nspo", frozenset(["every", "project", "rounding", "compile", "seed"]), ON_NULL_SPACE,
            given={"kind": "hard", "threshold": 5e-5, "only": "mlp"},
        ),
    )
}  # fmt: skip
"""`merging.method` -> its row."""
