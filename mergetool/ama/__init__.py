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

import importlib

_PUBLIC = {
    "AmaRecipe": "mergetool.ama.recipe",
    "ama_recipe": "mergetool.ama.recipe",
    "load_ama_recipe": "mergetool.ama.recipe",
    "AmaResult": "mergetool.ama.run",
    "check_ama": "mergetool.ama.run",
    "run_ama": "mergetool.ama.run",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mergetool.ama' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
