"""From lines of results to an answer.

choose.py          all of it: summarise(recipe, candidates, rows, row_scores)
groups.py          seeds to mean and spread
row_scores.py      scores row by row; differences.py: what is compared with what, with intervals
criterion.py       what a choice maximises; rule.py: the rule that chooses; doubts.py: why not to rely on it
hypervolume.py     how much of the box between SFT and RLHF a family covers
categories.py      scores per category of rows
"""
