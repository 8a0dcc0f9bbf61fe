"""What a candidate is. A kind is one class in a file of its own, and one row of kinds.py.

kinds.py           the table: key in a study -> class
candidate.py       what every kind answers; entry.py: what every line of `candidates` has
merge.py           offline merges of a grid; offline_recipe.py: the exact merge recipe of a point
recipe_file.py     a merge recipe that lies in a file
ama.py             merges whose ratios are learned
align.py           trainings; run_checkpoint.py: models along them
checkpoint.py      ready checkpoints; model.py: the study's own models
rlhf.py            which trainings are the study's RLHF model
models.py          the models of a study, and where its paths start
grid.py            points of a grid and their names; ranges.py: what a search may vary
workspace.py       OUT/candidates: a directory and a note for each candidate
content.py         recipes by what their files hold
weights.py         what a candidate that is made puts into the live model
"""
