"""A merge chosen in one call: a study made of models and tasks, cut to a budget, run, and its choice written.

tasks.py       FILE or a benchmark's name -> a metric entry
candidates.py  models -> the merges that are worth a try
template.py    both -> a study, as values and as commented YAML
halving.py     successive halving on rows: who is measured on all of them
pick.py        pick(models, tasks, out): all of it
"""
