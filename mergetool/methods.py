"""The table of offline methods: a method is a row, sparsifier × consensus × defaults × paper.

Everything the engine does with a method it reads from its row. A name that is not here is handed to mergekit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sparsifier = Literal["none", "random", "magnitude", "outliers", "della"]
Consensus = Literal["linear", "slerp", "sum", "sign"]


@dataclass(frozen=True, slots=True)
class Method:
    """One row.

    Attributes:
        sparsifier: what is done to each delta before they are combined.
        consensus: how they are combined. ``linear`` and ``slerp`` combine the models themselves, not deltas.
        normalize: default of ``parameters.normalize``.
        rescale: default of ``parameters.rescale``.
        needs_base: whether ``base_model`` is required.
        parameters: names a recipe may set, per model or for all.
        source: the paper, and the equation or section.
        use: one line on when to use it.
    """

    name: str
    sparsifier: Sparsifier
    consensus: Consensus
    normalize: bool
    rescale: str
    needs_base: bool
    parameters: frozenset[str]
    source: str
    use: str

    @property
    def deterministic(self) -> bool:
        """True where no random numbers take part."""
        return self.sparsifier not in ("random", "della")


def _row(name: str, sparsifier: Sparsifier, consensus: Consensus, *, source: str, use: str, normalize: bool = False,
         rescale: str = "none", needs_base: bool = True, also: str = "") -> Method:  # fmt: skip
    parameters = set(also.split()) if consensus == "slerp" else {"weight", *also.split()}
    if consensus in ("sum", "sign"):
        parameters |= {"lambda", "normalize", "int8_mask"}
    if sparsifier != "none":
        parameters |= {"density", "rescale"}
    return Method(name, sparsifier, consensus, normalize, rescale, needs_base, frozenset(parameters), source, use)


METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        _row(
            "linear", "none", "linear", normalize=True, needs_base=False, also="normalize",
            source="WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903, Eq. 1",
            use="first thing to try: a straight line between SFT and RLHF, one number to choose",
        ),
        _row(
            "slerp", "none", "slerp", also="t",
            source="Shoemake 1985, per tensor as in mergekit",
            use="two models far apart whose norms should not shrink on the way",
        ),
        _row(
            "task_arithmetic", "none", "sum",
            source="Ilharco et al. 2022, arXiv 2212.04089, §2",
            use="adding what several fine-tunings learned, when they hardly overlap",
        ),
        _row(
            "dare_linear", "random", "sum", rescale="unbiased",
            source="DARE, Yu et al. 2023, arXiv 2311.03099, Eq. 2-4",
            use="several SFT models with small deltas: most entries can be dropped at random",
        ),
        _row(
            "dare_ties", "random", "sign", rescale="unbiased",
            source="DARE (arXiv 2311.03099) with the sign election of TIES (arXiv 2306.01708)",
            use="as dare_linear, where the models pull some entries in opposite directions",
        ),
        _row(
            "ties", "magnitude", "sign", normalize=True, also="scope",
            source="TIES-Merging, Yadav et al. 2023, arXiv 2306.01708, §3, Algorithm 1",
            use="models that disagree: keep the largest entries, elect a sign, drop who disagrees",
        ),
        _row(
            "breadcrumbs", "outliers", "sum", also="gamma",
            source="Model Breadcrumbs, Davari & Belilovsky 2023, arXiv 2312.06795, §3",
            use="many tasks: drop the small entries and also the largest outliers",
        ),
        _row(
            "breadcrumbs_ties", "outliers", "sign", also="gamma",
            source="Model Breadcrumbs (arXiv 2312.06795) with the sign election of TIES",
            use="as breadcrumbs, where the models disagree in sign",
        ),
        _row(
            "della", "della", "sign", normalize=True, rescale="unbiased", also="epsilon",
            source="DELLA-Merging, Deep et al. 2024, arXiv 2406.11617, §3",
            use="as dare_ties, where large entries should be kept more often than small ones",
        ),
        _row(
            "della_linear", "della", "sum", rescale="unbiased", also="epsilon",
            source="DELLA-Merging (arXiv 2406.11617) without sign election",
            use="as dare_linear, where large entries should be kept more often than small ones",
        ),
    )
}  # fmt: skip
