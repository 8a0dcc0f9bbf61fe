"""From lines of results to an answer.

choose.py          seeds to mean and spread, the Pareto front, the rule that chooses
hypervolume.py     how much of the box between SFT and RLHF a family covers
categories.py      scores per category of rows
"""
