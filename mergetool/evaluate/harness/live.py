"""The model in memory through tasks of lm-evaluation-harness; nothing is loaded again but the tasks' data, once."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from mergetool.errors import DataError, MergetoolError, RecipeError
from mergetool.evaluate.harness.halves import halves
from mergetool.evaluate.harness.index import leaves, local_files, manager
from mergetool.evaluate.harness.isolation import SEED, quietly, seeded
from mergetool.evaluate.harness.names import AVERAGE, Asked, directions_of, has_average
from mergetool.evaluate.harness.scores import average, score_of
from mergetool.evaluate.harness.tasks import HarnessTask


class Harness:
    """Tasks of the harness with their data, loaded when first needed and kept for every model.

    Args:
        task: what to measure.
    """

    def __init__(self, task: HarnessTask) -> None:
        self.task = task
        self._loaded: dict[str, Any] | None = None
        self._halves: dict[str, dict[str, list[int]]] = {}

    def load(self) -> dict[str, Any]:
        """Fetches and reads the tasks' data; gives the harness's `tasks` and `groups` by name.

        Raises:
            RecipeError: an unknown task, or one that cannot be loaded: offline, or a package is missing.
        """
        if self._loaded is not None:
            return self._loaded
        task = self.task
        task.metrics()
        if task.unsafe_code:
            os.environ["HF_ALLOW_CODE_EVAL"] = "1"
        tasks: dict[str, Any] = {}
        groups: dict[str, Any] = {}
        for one in task.asked:
            found = self._load_one(one)
            if again := set(found["tasks"]) & set(tasks):
                raise RecipeError(f"{task.name}: the task '{again.pop()}' is measured twice", "name a group or its tasks")
            fewshot = one.num_fewshot if task.num_fewshot is None else task.num_fewshot
            for leaf in found["tasks"].values():
                own = leaf.get_config("num_fewshot")
                if own is None or (fewshot is not None and own != 0):  # a task that says 0 takes no examples
                    leaf.set_config(key="num_fewshot", value=fewshot or 0)
                leaf.set_fewshot_seed(seed=SEED)
            task.refuse([name for name, leaf in found["tasks"].items() if getattr(leaf, "UNSAFE_CODE", False)])
            tasks |= found["tasks"]
            groups |= found.get("groups", {})
        self._loaded = {"tasks": tasks, "groups": groups}
        return self._loaded

    def _load_one(self, one: Asked) -> Any:
        index = manager(one.task, self.task.include)
        # data files are looked for beside the YAML that names them, else where the harness looks: here
        beside = [Path(leaf.yaml_path).parent for leaf in leaves(one.task, self.task.include) if local_files(leaf)]
        place = beside[0] if beside else Path.cwd()
        try:
            with quietly(), seeded(), contextlib.chdir(place):
                return index.load([one.task])
        except MergetoolError:
            raise
        except ModuleNotFoundError as error:
            raise RecipeError(f"tasks: '{one.task}' needs the package {error.name}", f"pip install {error.name}") from None
        except Exception as error:  # each data set fails in its own way
            said = " ".join(str(error).split())[:200]
            raise RecipeError(
                f"tasks: '{one.task}' cannot be loaded ({type(error).__name__}: {said})",
                "check its YAML, or the network and HF_HUB_OFFLINE where its data is on the Hub",
            ) from None

    def _samples(self, half: str, limit: int | None = None) -> dict[str, list[int]]:
        """Documents of a half by task, as many as the task's own limit and `limit` allow."""
        found = {}
        for name, leaf in self.load()["tasks"].items():
            if name not in self._halves:
                self._halves[name] = halves(list(leaf.eval_docs))
            indices = sorted(self._halves[name][half][: self.task.limit][:limit])  # the harness pairs them in rising order
            if not indices:
                raise DataError(f"tasks: '{name}' has too few documents for two halves", "leave it out of the study")
            found[name] = indices
        return found

    def measure(
        self, model: Any, tokenizer: Any, half: str | None = None, seed: int = 0, limit: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """Every task on one half of its documents, or on all of them.

        Args:
            model: a live causal language model.
            tokenizer: its tokenizer.
            half: "validation", "test", or None for all documents.
            seed: of the bootstrap.
            limit: documents per task of a half, where that is fewer than the task's own limit.

        The model is left in evaluation mode.

        Returns:
            Per column: value, low, high, n, unit, higher_is_better, and for a group `by`, the value of each of its tasks.
        """
        import copy

        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        loaded = self.load()
        wrapper: Any = HFLM  # its metaclass hides its arguments
        # a copy: the harness gives the tokenizer a padding token of its own choice
        with quietly(), seeded():
            live = wrapper(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=self.task.batch_size)
            results = evaluate(
                lm=live,
                task_dict=loaded,
                samples=self._samples(half, limit) if half else None,
                limit=None if half else self.task.limit,
                bootstrap_iters=0,
                apply_chat_template=self.task.chat,
                fewshot_as_multiturn=self.task.chat,
                confirm_run_unsafe_code=self.task.unsafe_code,
            )
        found, drawn = {}, []
        metrics = [one for one in self.task.metrics() if one.name != AVERAGE]
        for one, metric in zip(self.task.asked, metrics, strict=True):
            first = next(iter(directions_of(one.task, self.task.include)))
            score, draws = score_of(one, metric, first, results, loaded, seed)
            found[metric.name] = score
            drawn.append(draws)
        if has_average(metrics):
            return {AVERAGE: average(self.task.asked, metrics, found, drawn), **found}
        return found
