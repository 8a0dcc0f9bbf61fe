"""mergetool env: what a bug report should say about a machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from mergetool.cli.shell import echo, emit_json, size
from mergetool.version import __version__

PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors", "huggingface-hub", "mergekit",
    "lm-eval", "optuna", "ray", "openai",
)  # fmt: skip


def env(json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False) -> None:
    """Print the versions, the processor, memory and GPUs: paste this into a bug report."""
    facts = _facts()
    if json:
        emit_json(facts)
        return
    for name, value in facts.items():
        echo(f"{name}: {', '.join(value) or 'none' if isinstance(value, list) else value}")


def _facts() -> dict[str, Any]:
    from mergetool.files import cores

    found: dict[str, Any] = {"mergetool": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["cores"] = cores()
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = size(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    import torch

    found["torch threads"] = torch.get_num_threads()
    found["GPUs"] = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
    return found
