"""What TRL and transformers refuse, as one line that names the recipe's field."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mergetool.errors import MergetoolError, RecipeError

_LIBRARIES = frozenset({"trl", "transformers", "accelerate", "datasets", "peft", "jinja2"})
_WORD = re.compile(r"[a-z][a-z0-9_]{3,}")


@contextmanager
def refusals(config: Any, training: Mapping[str, Any]) -> Iterator[None]:
    """Within it, an error that a library has raised by itself becomes a RecipeError; one of ours keeps its traceback.

    Args:
        config: TRL's, whose fields a message may name.
        training: the recipe's, whose fields are the likeliest.
    """
    try:
        yield
    except MergetoolError:
        raise
    except OSError:
        raise  # of the disk, which others look at
    except Exception as error:
        if not of_a_library(error):
            raise
        field = field_named(str(error), config, training)
        raise RecipeError(
            f"training{f'.{field}' if field else ''}: {first_line(error)}", f"see TRL's {type(config).__name__}"
        ) from error


def of_a_library(error: BaseException) -> bool:
    """Whether the innermost line that an error comes from is a library's own."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    parts = Path(trace.tb_frame.f_code.co_filename).parts
    return trace.tb_frame.f_code.co_filename == "<template>" or bool(_LIBRARIES & set(parts))


def field_named(message: str, config: Any, training: Mapping[str, Any]) -> str | None:
    """The field of TRL's config that a message is about: one that the recipe sets, else the first that is named."""
    fields = {one.name for one in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else set()
    named = [word for word in _WORD.findall(message) if word in fields]
    return next((word for word in named if word in training), next(iter(named), None))


def first_line(error: BaseException) -> str:
    """What a library says was wrong, on one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
