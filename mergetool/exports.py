"""How a package of ours shows its names: loaded when they are first asked for, and some packages can be called.

A name is written three times in a package: in its table (read at run time), under ``if TYPE_CHECKING`` (read by editors) and in
``__all__``. tests/test_exports.py holds the three against each other.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def lazy(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: its ``__name__``.
        homes: public name -> module that defines it. A module of that very name in the package stands for itself.

    Returns:
        The two functions, to be assigned in the package under ``if not TYPE_CHECKING``.
    """

    def getattr_(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        home = importlib.import_module(homes[name])
        return home if homes[name] == f"{package}.{name}" else getattr(home, name)

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return getattr_, dir_


class CallableModule(ModuleType):
    """A module that can be called: as the function of its own name in it, which it may load when it is called.

    The import system binds a submodule to its package under the submodule's name, so ``mergetool.merge`` is the package of
    that name after any ``import mergetool.merge``. To be a function in spite of it, the package itself has to be callable.
    """

    @property
    def _function(self) -> Callable[..., Any]:
        return getattr(self, self.__name__.rpartition(".")[2])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """For ``inspect.signature``, and for the editors and notebooks that ask it."""
        return inspect.signature(self._function)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """A pickle holds the name, as it does for a function."""
        return importlib.import_module, (self.__name__,)


def make_callable(module: str) -> None:
    """Makes a module callable as its function of the same name; the last line of that module.

    Args:
        module: its ``__name__``.
    """
    sys.modules[module].__class__ = CallableModule
