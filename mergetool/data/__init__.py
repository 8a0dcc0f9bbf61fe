"""Rows of text: preference pairs and completions from files or the Hub, with every unusable row named or counted."""

from mergetool.data.counts import Counts
from mergetool.data.inputs import input_rows
from mergetool.data.labelled import labelled_rows
from mergetool.data.pairs import preference_rows, preferences
from mergetool.data.prompts import prompt_rows
from mergetool.data.rows import numbered_rows, read_rows
from mergetool.data.supervised import supervised_rows
from mergetool.data.texts import completions

__all__ = [
    "Counts",
    "completions",
    "input_rows",
    "labelled_rows",
    "numbered_rows",
    "preference_rows",
    "preferences",
    "prompt_rows",
    "read_rows",
    "supervised_rows",
]
