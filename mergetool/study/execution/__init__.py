"""Making and measuring candidates: in this process, in several, or on a Ray cluster.

run.py                run_study(recipe, out): whatever is not in results.jsonl yet
results.py            results.jsonl: appended to, read back, one line a candidate
evaluator.py          one candidate: its key, made, measured
bench.py              what it is measured on, the same for all; live_model.py: the model that takes its weights
scheduler.py          who makes which candidate when; process_executor.py, ray_executor.py: workers
search.py             points that Optuna proposes
save.py               candidates that were merged in memory, written as checkpoints
"""
