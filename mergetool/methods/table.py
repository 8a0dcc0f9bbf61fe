"""The table of methods. A row says what is done to each delta, how the deltas are combined, what may be set, and where
the method is used: offline on checkpoints, online in an optimizer.

Everything that the program does with a method it reads from its row, and nothing else compares its name. The arithmetic
stands in `mergetool/ops/sparsifiers/NAME.py`, `mergetool/ops/consensus/NAME.py` and, for the optimizers,
`mergetool/optim/operators/NAME.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mergetool.methods.parts import (
    ARCEE_FUSION,
    DELLA,
    FISHER,
    KARCHER,
    LINEAR,
    MAGNITUDE,
    MAGNITUDE_BY_TENSOR,
    MODEL_STOCK,
    MULTISLERP,
    NEARSWAP,
    NONE,
    NUSLERP,
    ON_DARE,
    ON_LINEAR,
    ON_NULL_SPACE,
    ON_TIES,
    OUTLIERS,
    PROJECTION,
    RAM,
    RAM_PLUS,
    RANDOM,
    REGMEAN,
    SCE,
    SIGN,
    SLERP,
    SUM,
)
from mergetool.methods.rows import ConsensusRow, Method, Online, ProjectionRow, SparsifierRow, Training
from mergetool.methods.settings import EVERY, MERGES
from mergetool.options import Number


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
            "fisher", NONE, FISHER, needs_base=False,
            source="Fisher merging, Matena & Raffel 2022, arXiv 2111.09832, §2.3; the empirical diagonal",
            use="you have rows with answers of each model: the mean, each entry weighted by how much a model's answers need it",
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
            "passthrough", NONE,
            ConsensusRow("passthrough", (Number("scale", 1.0, per_model=True),), of_models=True, models=(1, 1)),
            needs_base=False,
            source="mergekit 0.1.5",
            use="with slices: a deeper or shallower model of the layers of one or several",
        ),
    )
}  # fmt: skip
"""`merge_method` -> its row."""

ONLINE: dict[str, Online] = {m.online.name: m.online for m in METHODS.values() if m.online is not None}
"""`optimizer.method` -> its use online. The row that it belongs to is its offline partner: what a run with K = T does."""


TRAININGS: dict[str, Training] = {
    training.word: training
    for training in (
        *(Training(o.word, o.keys | (EVERY if o.calibrated else MERGES), o) for o in ONLINE.values()),
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
