"""Training with online merging: one YAML recipe, TRL's trainers, our optimizers."""

from mergetool.align.recipe import AlignRecipe, Data, Merging, align_recipe, load_align_recipe, override

__all__ = ["AlignRecipe", "Data", "Merging", "align_recipe", "load_align_recipe", "override"]
