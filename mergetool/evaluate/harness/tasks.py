"""Public benchmarks to measure: which tasks of lm-evaluation-harness, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mergetool.errors import RecipeError
from mergetool.evaluate.harness.names import Asked, described, expand, runs_code
from mergetool.evaluate.metrics.base import Metric


@dataclass(frozen=True)
class HarnessTask:
    """Public benchmarks to measure.

    Attributes:
        name: appears before each task's name: `public.arc_easy`.
        tasks: names of tasks, groups or suites; `TASK:METRIC` or `TASK:METRIC:FILTER` where the first is not meant.
        num_fewshot: solved examples before each question; None: what the suite or the task says.
        limit: documents per task (and half) at most.
        chat: put the questions through the tokenizer's chat template.
        include: directories of local YAML tasks, which take precedence over the harness's own.
        unsafe_code: whether tasks may execute what the model writes.
        batch_size: requests at a time.
    """

    name: str
    tasks: tuple[str, ...]
    num_fewshot: int | None = None
    limit: int | None = None
    chat: bool = False
    include: tuple[Path, ...] = ()
    unsafe_code: bool = False
    batch_size: int = 16

    @property
    def asked(self) -> list[Asked]:
        return expand(self.tasks)

    def metrics(self, side: str = "tax") -> list[Metric]:
        """The columns it gives, known without data or weights.

        Raises:
            RecipeError: an unknown task, or one that executes what the model writes where nobody allowed that.
        """
        found = described(self.asked, self.include, side)
        self.refuse([one.task for one in self.asked if runs_code(one, self.include)])
        return found

    def refuse(self, unsafe: list[str]) -> None:
        """Raises where these tasks execute what the model writes and nobody allowed it."""
        if unsafe and not self.unsafe_code:
            raise RecipeError(
                f"tasks: of {self.name}, {', '.join(unsafe)} would execute code that the model wrote",
                "allow it with unsafe_code: true, in a place where it can do no harm, or name the other tasks alone",
            )
