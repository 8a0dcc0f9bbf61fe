"""AMA, adaptive model averaging: the ratio of SFT and RLHF in each block, learned from answers of high reward.

recipe.py     what may be written in an AMA recipe
ratios.py     free numbers -> ratios with a given mean
averaged.py   a live model of averaged weights; its gradients reduced to one number a block as they are made
learn.py      the loop
samples.py    best-of-n answers of the RLHF model
run.py        recipe -> ratios -> a plain merge recipe

Source: Lin et al. 2023, *Mitigating the Alignment Tax of RLHF*, arXiv 2309.06256.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergetool.exports import lazy

if TYPE_CHECKING:
    from mergetool.ama.recipe import AmaRecipe, ama_recipe, load_ama_recipe
    from mergetool.ama.run import AmaResult, check_ama, run_ama

_LAZY = {
    "AmaRecipe": "mergetool.ama.recipe",
    "AmaResult": "mergetool.ama.run",
    "ama_recipe": "mergetool.ama.recipe",
    "check_ama": "mergetool.ama.run",
    "load_ama_recipe": "mergetool.ama.recipe",
    "run_ama": "mergetool.ama.run",
}
__all__ = [
    "AmaRecipe",
    "AmaResult",
    "ama_recipe",
    "check_ama",
    "load_ama_recipe",
    "run_ama",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _LAZY)
