"""What sampled answers are worth: a Python function or a reward model, as `reward:` names it."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.checkpoint.classifier import must_classify
from mergetool.checkpoint.content import bytes_hash
from mergetool.checkpoint.layout import Layout
from mergetool.config.sources import resolve_source
from mergetool.errors import MergetoolError, RecipeError, nearest
from mergetool.fingerprints import checkpoint_identity
from mergetool.hub.references import local_directory, open_layout

if TYPE_CHECKING:
    from mergetool.align.recipe import AlignRecipe

_FUNCTION = re.compile(r"(?P<file>.+\.py):(?P<name>\w+)")
_ASKED = "it takes prompts, completions and the rows' other columns by keyword, and returns one number for each completion"


def check_rewards(recipe: AlignRecipe) -> None:
    """Looks at each reward of a recipe; see `check_reward`."""
    for text in _all(recipe):
        check_reward(text, recipe.directory)


def reward_identities(recipe: AlignRecipe) -> list[str]:
    """What each reward of a recipe is; see `reward_identity`."""
    return [reward_identity(text, recipe.directory) for text in _all(recipe)]


def reward_identity(text: str, directory: Path) -> str:
    """What a reward is: a function by its name and its file's bytes, a model by what it holds.

    Args, Raises: as `check_reward`.
    """
    check_reward(text, directory)
    found = _function(text, directory)
    if found is not None:
        return f"{bytes_hash(found[0])}:{found[1]}"
    return checkpoint_identity(resolve_source(text, directory))


def check_reward(text: str, directory: Path) -> None:
    """Looks at a reward without running or loading it.

    Args:
        text: `FILE.py:FUNCTION` or a sequence-classification checkpoint.
        directory: where relative paths start from.

    Raises:
        RecipeError: the file or the function in it is missing, or the file is not Python.
        CheckpointError: the model directory is no sequence-classification model.
    """
    found = _function(text, directory)
    if found:
        _check_function(*found)
    else:
        _classifies(open_layout(resolve_source(text, directory)))


def load_rewards(recipe: AlignRecipe) -> list[Callable[..., Any] | str]:
    """The rewards as TRL takes them: functions, and directories of reward models; see `load_reward`."""
    return [load_reward(text, recipe.directory) for text in _all(recipe)]


def load_reward(text: str, directory: Path) -> Callable[..., Any] | str:
    """A reward as TRL takes it: a function of (prompts, completions, columns), or the directory of a reward model.

    Raises:
        RecipeError: a file cannot be imported.
        CheckpointError: the model is no reward model.
    """
    found = _function(text, directory)
    if found is not None:
        return _told(_import(*found), text)
    source = resolve_source(text, directory)
    _classifies(open_layout(source))
    return str(local_directory(source))


def _all(recipe: AlignRecipe) -> list[str]:
    return [recipe.reward] if isinstance(recipe.reward, str) else list(recipe.reward or [])


def _function(text: str, directory: Path) -> tuple[Path, str] | None:
    """(file, function) of `file.py:function`; None for a model."""
    found = _FUNCTION.fullmatch(text)
    return (directory / Path(found["file"]).expanduser(), found["name"]) if found else None


def _check_function(path: Path, name: str) -> None:
    try:
        source = path.read_bytes()
        tree = ast.parse(source)
    except OSError as error:
        raise RecipeError(f"reward: {path}: cannot be read ({error.strerror or error})", "check the path") from None
    except (SyntaxError, ValueError) as error:
        raise RecipeError(f"reward: {path}: is not Python ({error})", "correct the file") from None
    defined = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    if name not in defined:
        raise RecipeError(f"reward: {path} defines no '{name}'", nearest(name, defined) if defined else _ASKED)


def _classifies(layout: Layout) -> None:
    must_classify(layout, "reward", "give a sequence-classification checkpoint, or FILE.py:FUNCTION")


def _import(path: Path, name: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location(f"mergetool_reward_{path.stem}", path)
    assert spec is not None  # the file is there and ends with .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        function = getattr(module, name)
    except Exception as error:
        raise RecipeError(f"reward: {path}: {type(error).__name__}: {error}", "correct the file") from error
    if not callable(function):
        raise RecipeError(f"reward: '{name}' in {path} is a {type(function).__name__}", f"give a function: {_ASKED}")
    return function


def _told(function: Callable[..., Any], text: str) -> Callable[..., Any]:
    """The function with its failures told as the recipe's."""
    if inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    def call(*, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        try:
            values = list(function(prompts=prompts, completions=completions, **columns))
        except MergetoolError:
            raise
        except Exception as error:
            raise RecipeError(f"reward {text}: {type(error).__name__}: {error}", _ASKED) from error
        if len(values) != len(completions):
            raise RecipeError(f"reward {text}: {len(values)} values for {len(completions)} completions", _ASKED)
        return [None if value is None else float(value) for value in values]

    return call
