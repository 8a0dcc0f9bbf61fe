"""The tasks of `mergetool evaluate`: which metrics are taken on which of its files, and which public benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.cli.shell import note

if TYPE_CHECKING:
    from mergetool.evaluate import HarnessTask, Task

OPTIONS = {"preferences": "--reward", "completions": "--tax", "prompts": "--prompts"}
ASKS = {"reward_model": "--reward-model", "judge": "--judge-url and --judge-model"}


@dataclass(frozen=True)
class Files:
    """Data files by option, and whether there is a reference model."""

    reward: str | None
    tax: tuple[str, ...]
    prompts: tuple[str, ...]
    reference: bool

    @property
    def given(self) -> bool:
        return bool(self.reward or self.tax or self.prompts)


def names_of(tasks: str | None) -> tuple[list[str] | None, list[str]]:
    """What --tasks names: metrics (None: it was not given), and tasks and suites of the harness.

    Raises:
        RecipeError: it names nothing.
    """
    from mergetool.errors import RecipeError
    from mergetool.evaluate import METRICS

    if tasks is None:
        return None, []
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise RecipeError(f"--tasks '{tasks}' names nothing", "write names with commas between them")
    return [name for name in names if name in METRICS], [name for name in names if name not in METRICS]


def benchmarks(
    names: list[str],
    num_fewshot: int | None,
    limit: int | None,
    chat: bool,
    include: list[Path],
    unsafe_code: bool,
    batch_size: int = 16,
) -> HarnessTask:
    """The public benchmarks; names what of a suite is not run.

    Raises:
        RecipeError: a name is no metric, task or suite, or a task executes code and nobody allowed that.
    """
    from mergetool.errors import RecipeError
    from mergetool.evaluate import SUITES, HarnessTask
    from mergetool.evaluate.harness.names import not_run

    name = names[0] if len(names) == 1 and names[0] in SUITES else "public"
    task = HarnessTask(
        name, tuple(names), num_fewshot, limit, chat, tuple(folder.absolute() for folder in include), unsafe_code, batch_size
    )
    try:
        task.metrics()
    except RecipeError as error:
        raise RecipeError(
            f"--{error.message.removeprefix('--')}", error.hint.replace("unsafe_code: true", "--unsafe-code")
        ) from None
    for suite, left_out in not_run(names).items():
        note(f"{suite} runs without {'; '.join(left_out)}")
    return task


def data_tasks(files: Files, named: list[str] | None, limit: int | None, beta: float, limits: dict[str, Any]) -> list[Task]:
    """One task per file, with the metrics that are named and that its rows allow; all that they allow if none is.

    A metric that needs prompts alone is taken on the --prompts files, and where there are none, on the file of its side.

    Raises:
        RecipeError: a metric lacks its file, its model or its reference.
    """
    from mergetool.data import completions, preference_rows, prompt_rows
    from mergetool.errors import RecipeError
    from mergetool.evaluate import Task

    if not files.given:
        wants = f"--tasks {', '.join(named)} needs data" if named else "nothing to measure"
        raise RecipeError(wants, "give --reward PAIRS with --reference SFT, --tax FILE or --prompts FILE; or name public tasks")
    _must_have_all(files, named, limits)
    found: list[Task] = []
    if files.reward:
        rows, counts = preference_rows(files.reward, limit)
        note(f"{files.reward}: {counts}")
        found.append(Task(_label(files.reward), _on("preferences", rows, files, named, limits), rows, beta=beta, **limits))
    for file in files.tax:
        rows = completions(file, limit)
        found.append(Task(_label(file), _on("completions", rows, files, named, limits), rows, **limits))
    for file in files.prompts:
        rows, counts = prompt_rows(file, limit)
        note(f"{file}: {counts}")
        found.append(Task(_label(file), _on("prompts", rows, files, named, limits), rows, **limits))
    if lost := next((name for name in named or () if not any(name in task.metrics for task in found)), None):
        raise RecipeError(f"--tasks {lost} cannot be taken on the data given", f"add {OPTIONS[_metric(lost).rows]}")
    found = [task for task in found if task.metrics]
    if len({task.name for task in found}) < len(found):
        found = [Task(**{**vars(task), "name": f"{task.name}#{at}"}) for at, task in enumerate(found, 1)]
    return found


def _must_have_all(files: Files, named: list[str] | None, limits: dict[str, Any]) -> None:
    from mergetool.errors import RecipeError

    if files.reward and not files.reference:
        raise RecipeError("--reward needs --reference", "give the SFT model that the reward is relative to")
    for name in named or ():
        row = _metric(name)
        if row.asks and not limits[row.asks]:
            raise RecipeError(f"--tasks {name} needs {ASKS[row.asks]}", "add it")
        if row.compares_with and not files.reference:
            raise RecipeError(f"--tasks {name} needs --reference", "give the SFT model that it compares with")


def _on(kind: str, rows: list[dict], files: Files, named: list[str] | None, limits: dict[str, Any]) -> tuple[str, ...]:
    """The metrics to take on a file of that kind."""
    from mergetool.evaluate import METRICS
    from mergetool.evaluate.rows import ANY_ROWS, ROW_KINDS

    side = ROW_KINDS[kind].side
    found = []
    for name in METRICS if named is None else named:
        row = _metric(name)
        # prompts are in every file; where some are given for themselves, the other files are not asked
        fits = row.rows == kind or (row.rows == ANY_ROWS and not files.prompts and row.side == side)
        if fits and (named is not None or _by_default(name, kind, rows, files, limits)):
            found.append(name)
    return tuple(found)


def _by_default(name: str, kind: str, rows: list[dict], files: Files, limits: dict[str, Any]) -> bool:
    """Whether a metric that nobody named is taken: it costs no second model and lacks nothing."""
    row = _metric(name)
    if row.asks and not limits[row.asks]:
        return False
    if row.needs_second_model or (row.compares_with and not files.reference):
        return False
    return row.by_default(kind, rows)


def _metric(name: str) -> Any:
    from mergetool.evaluate import METRICS

    return METRICS[name]


def _label(source: str) -> str:
    return Path(source.removeprefix("lab:")).name.partition(".")[0]
