"""The study language: what may be written in a study, read strictly and checked without weights.

study_recipe.py    the recipe; metric_entries.py: its metrics; figures.py: its figures
columns.py         one column of results a metric
splits.py          the rows of both splits, and what decides a score
expand.py          lines of `candidates` to candidates, and the trials of a search
check.py           everything that can be known without weights
"""
