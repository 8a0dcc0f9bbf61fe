"""The index of lm-evaluation-harness: which tasks and groups there are, from their YAML files alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from mergetool.errors import RecipeError
from mergetool.evaluate.harness.suites import SUITES
from mergetool.evaluate.metrics import METRICS


def manager(name: str, include: tuple[Path, ...] = ()) -> Any:
    """The harness's own TaskManager; its thousands of files are read only where a name is not in `include`.

    Raises:
        RecipeError: the harness is not installed, or a directory holds no tasks or a broken one.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise RecipeError("tasks: lm-evaluation-harness is missing", 'pip install "mergetool[eval]"') from None
    if not hasattr(TaskManager, "load"):
        raise RecipeError("tasks: lm-evaluation-harness is older than 0.4.13", 'pip install --upgrade "mergetool[eval]"')
    files = tuple((file, file.stat().st_mtime_ns) for folder in include for file in _yaml_files(folder))
    if include:
        local = _local(include, files)
        entry = local.task_index.get(name)
        if entry is not None and all(child in local.task_index for child in children(entry)):
            return local
    return _whole(include, files)


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("**/*.yaml"))


@lru_cache(maxsize=4)
def _local(include: tuple[Path, ...], files: tuple) -> Any:
    """`files` and their times are part of the key: a corrected task is read again."""
    for folder in include:
        _must_hold_tasks(folder)
    return _manager(include, include_defaults=False)


@lru_cache(maxsize=4)
def _whole(include: tuple[Path, ...], files: tuple) -> Any:
    return _manager(include)


def _manager(include: tuple[Path, ...], **options: Any) -> Any:
    import logging

    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(include_path=list(include) or None, **options)


def _must_hold_tasks(folder: Path) -> None:
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such directory"
        raise RecipeError(f"include: {folder}: {what}", "give a directory with YAML tasks")
    files = _yaml_files(folder)
    if not files:
        raise RecipeError(f"include: {folder}: no .yaml file in it", "give a directory with YAML tasks")
    for file in files:
        try:
            load_yaml(file, resolve_func=False)
        except (yaml.YAMLError, OSError) as error:
            # the harness would leave the file out without a word
            said = getattr(error, "problem", None) or getattr(error, "strerror", None) or "not YAML"
            raise RecipeError(f"include: {file}: {said}", "correct the task there") from None
        except ValueError:
            continue  # some other YAML file


def children(entry: Any) -> list[str]:
    """Names of what a group or a tag holds; none for a task."""
    if entry.kind.name == "TAG":
        return sorted(entry.tags)
    return list(_named((entry.cfg or {}).get("task"))) if entry.kind.name == "GROUP" else []


def _named(listed: Any) -> Iterator[str]:
    """Names in a group's list; of a group that is written out inside it, the names in its own."""
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and isinstance(item.get("task"), list):
            yield from _named(item["task"])
        else:
            name = item if isinstance(item, str) else item.get("group") or item.get("task")
            if isinstance(name, str):
                yield name


def entry_of(name: str, include: Sequence[Path]) -> Any:
    """The index entry of a task or a group.

    Raises:
        RecipeError: there is none, or it is a tag.
    """
    index = manager(name, tuple(include)).task_index
    entry = index.get(name)
    if entry is None:
        close = get_close_matches(name, [*index, *SUITES, *METRICS], n=1, cutoff=0.5)
        where = f" in {', '.join(map(str, include))} or" if include else " in"
        raise RecipeError(
            f"tasks: no '{name}'{where} lm-evaluation-harness",
            f"did you mean '{close[0]}'?" if close else "`lm-eval ls tasks` lists them",
        )
    if entry.kind.name == "TAG":
        some = children(entry)
        raise RecipeError(
            f"tasks: '{name}' is a tag of {len(some)} tasks and has no score", f"name them: {', '.join(some[:6])}"
        )
    return entry


def leaves(name: str, include: Sequence[Path]) -> Iterator[Any]:
    """The index entries of a group's tasks, or of the task itself; tags opened, names that lead nowhere left out."""
    index = manager(name, tuple(include)).task_index
    entry = index.get(name)
    if entry is None:
        return
    if entry.kind.name in ("GROUP", "TAG"):
        for child in children(entry):
            yield from leaves(child, include)
    else:
        yield entry


def local_files(entry: Any) -> list[Path]:
    """The data files of a task that lie beside its YAML."""
    named = ((entry.cfg or {}).get("dataset_kwargs") or {}).get("data_files") or []
    values = named.values() if isinstance(named, dict) else [named]
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    places = [Path(entry.yaml_path).parent / str(text) for text in texts]
    return [place for place in places if place.is_file()]
