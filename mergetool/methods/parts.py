"""The parts that methods are made of: sparsifiers, consensus, the projection, and their use in an optimizer."""

from __future__ import annotations

from mergetool.methods.rows import ConsensusRow, Online, ProjectionRow, SparsifierRow
from mergetool.methods.settings import (
    DENSITY,
    EPSILON,
    FLOOR,
    GAMMA,
    INT8_MASK,
    LAMBDA,
    NORMALIZE,
    PROJECTION_OPTIONS,
    RESCALE,
    SCALING,
    SCOPE,
    STATISTIC,
    WEIGHT,
    T,
    all_kept,
    of_ties,
    of_updates,
    one_limit,
    probabilities_inside,
)
from mergetool.options import Number, Option, Truth, Word

PROJECTION = ProjectionRow(PROJECTION_OPTIONS, one_limit)

NONE = SparsifierRow("none")
RANDOM = SparsifierRow("random", (DENSITY, RESCALE), random=True)
MAGNITUDE = SparsifierRow("magnitude", (DENSITY, RESCALE, SCOPE), gathers=True)
MAGNITUDE_BY_TENSOR = SparsifierRow("magnitude", (DENSITY, RESCALE), gathers=True)
OUTLIERS = SparsifierRow("outliers", (DENSITY, RESCALE, GAMMA), gathers=True)
DELLA = SparsifierRow("della", (DENSITY, RESCALE, EPSILON), random=True, fits=probabilities_inside)

LINEAR = ConsensusRow("linear", (WEIGHT, NORMALIZE), of_models=True, divides=NORMALIZE.name)
SLERP = ConsensusRow("slerp", (T,), of_models=True, pair=True)
NUSLERP = ConsensusRow(
    "nuslerp", (WEIGHT, SCALING, Truth("nuslerp_flatten", True), Truth("nuslerp_row_wise", False)), models=(2, 2)
)  # fmt: skip
MULTISLERP = ConsensusRow(
    "multislerp", (WEIGHT, SCALING, Truth("normalize_weights", True), Number("eps", 1e-8, low=0.0)),
    divides="normalize_weights",
)  # fmt: skip
KARCHER = ConsensusRow(
    "karcher", (Number("max_iter", 10, low=0, whole=True), Number("tol", 1e-5, low=0.0, above=True)),
    of_models=True, base_too=True,
)  # fmt: skip
MODEL_STOCK = ConsensusRow("model_stock", (Truth("filter_wise", False),), models=(2, None))
NEARSWAP = ConsensusRow("nearswap", (T,), of_models=True, pair=True)
ARCEE_FUSION = ConsensusRow("arcee_fusion", of_models=True, pair=True, gathers=True)
SCE = ConsensusRow("sce", (Number("select_topk", 1.0, low=0.0), INT8_MASK), gathers=True)
RAM = ConsensusRow("ram", (FLOOR,))
RAM_PLUS = ConsensusRow("ramplus_tl", (FLOOR, Number("r", 0.1), Number("alpha", 0.2, low=0.0)))
_SHARE = Number("weight", 1.0, per_model=True, low=0.0, above=True, what="above 0")
FISHER = ConsensusRow(
    "fisher", (_SHARE, Number("floor", 1e-6, low=0.0, above=True, what="above 0"), Truth("normalize_fisher", False)),
    of_models=True, calibrated=True, answers=True,
)  # fmt: skip
REGMEAN = ConsensusRow(
    "regmean",
    (
        _SHARE,
        Number("off_diagonal", 0.9, low=0.0, high=1.0),
    ),
    of_models=True, calibrated=True,
)  # fmt: skip
SUM = ConsensusRow("sum", (WEIGHT, LAMBDA, NORMALIZE, INT8_MASK))
SIGN = ConsensusRow("sign", (WEIGHT, LAMBDA, NORMALIZE, INT8_MASK))


ON_DARE = Online(
    "dare", "OnDARE", "ondare",
    keys=frozenset(["density", "rescale", "tau_mask", "clip", "seed"]), defaults={"rescale": "unbiased"},
)  # fmt: skip
ON_TIES = Online(
    "ties", "OnTIES", "onties",
    keys=frozenset(["density", "rescale", "elect", "statistic", "clip", "seed"]), bounded=True, fits=of_ties,
    later=(STATISTIC,),
)  # fmt: skip


ON_NULL_SPACE = Online(
    "null_space", "OnNullSpace", "onnullspace",
    keys=frozenset(["kind", "strength", "threshold", "energy", "rank", "project", "only", "skip", "seed"]),
    defaults={"density": 1.0},
    merges="what the calibration rows do not see of each update", fits=of_updates, calibrated=True,
    own=(
        *PROJECTION_OPTIONS, Word("project", "update", words=("update", "gradient")),
        Option("only", what="parts of names, with commas between them: of the tensors that are projected"),
        Option("skip", what="parts of names, with commas between them: of tensors that are not projected"),
    ),
)  # fmt: skip
ON_LINEAR = Online(
    "linear", "OnLinear", "onlinear",
    keys=frozenset(["seed"]), defaults={"density": 1.0}, points=True, merges="the way back to the SFT model", fits=all_kept,
)  # fmt: skip
