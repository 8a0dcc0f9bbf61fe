"""The table of methods: `table.py`. Its rows are of `rows`, made of `parts`, with what may be set in `settings`."""

from mergetool.methods.rows import ConsensusRow, Method, Online, ProjectionRow, SparsifierRow, Training
from mergetool.methods.settings import SETTINGS, STATISTIC
from mergetool.methods.table import METHODS, ONLINE, TRAININGS, row

__all__ = [
    "METHODS",
    "ONLINE",
    "SETTINGS",
    "STATISTIC",
    "TRAININGS",
    "ConsensusRow",
    "Method",
    "Online",
    "ProjectionRow",
    "SparsifierRow",
    "Training",
    "row",
]
