"""mergetool.json: what a result says of itself. One schema for merges and alignments, written and read here alone.

Schema 2. Two older forms, without the key `schema`, are read as well: that of merges (`kind: merge`), and that of alignments
(`command: align`, the models under `origins`, and under `inputs` the hashes of their headers by role).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from mergetool import reading
from mergetool.errors import CheckpointError
from mergetool.files import write_whole

MANIFEST = "mergetool.json"
SCHEMA = 2


@dataclass(frozen=True)
class Input:
    """A model that a result is made of.

    Attributes:
        model: as the recipe names it.
        role: what it is in an alignment: `sft`, `base`.
        revision: its commit on the Hub.
        license, license_name, license_link: as its card says.
        headers_sha256: weight file -> hash of its header.
        content: weight file -> hash of what it holds; of a local one.
    """

    model: str
    role: str | None = None
    revision: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    headers_sha256: dict[str, str] | None = None
    content: dict[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Without what is not known."""
        return _known(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Input:
        """What other versions wrote beside it is passed over."""
        names = {one.name for one in fields(cls)}
        return cls(**{key: value for key, value in found.items() if key in names})


def _calibrated(what: str, facts: dict[str, Any]) -> str:
    rows = facts.get("rows") or {}
    sources = ", ".join(f"`{source}`" for source in rows.get("sources") or [])
    found = f"{what} on {rows.get('rows')} rows ({rows.get('tokens')} tokens) of {sources or 'unnamed rows'}: "
    if "rank" not in facts:
        return found + "the Fisher information of each entry."
    return found + f"at most {facts['rank']} eigenvectors of each map's inputs, {facts.get('energy')} of their energy."


@dataclass(frozen=True)
class Manifest:
    """Facts about a result.

    Attributes:
        kind: `merge` or `align`.
        recipe: as it was carried out.
        fingerprint: of all that the result's bytes depend on, by content; equal ones, equal results.
        plan: of a merge, the part of the fingerprint that is known without reading weights.
        versions: of Python and the libraries.
        inputs: the models.
        outputs_sha256: weight file -> its hash.
        files: every other file that belongs to the result, but for this one, the card and what describes the run.
        dtype: torch's name of the type that most weights are stored in.
        warnings: shown to the user.
        trust_remote_code: the files or repositories whose code a loader of the result runs.
        adapter: of a result that is one: what it is for, its ranks, and the share of the norm that they keep.
        name: of the result.
        calibration: of a method that projects: the facts of its calibration: model, rows and their number, rank, energy.
        calibrations: of a method that reads one of each model: place and name in the recipe -> its facts.
        engine, reason, seed, distances, kept: of a merge: `native` or `mergekit` and why; of its random masks; to each
            input; of each sparsified delta.
        steps, merging, metrics, drift, data, seeds, along: of an alignment: its optimizer steps; method, times, amount;
            the last ones logged; distance to theta_s; rows kept and dropped; of data and masks; the steps whose weights
            are kept beside it.
        trained: the steps of its whole run, where the written weights are those of an earlier one.
        step: of one of these: the step that it was taken at.
        mergetool: the version that made it.
        schema: of this account.
    """

    kind: str
    recipe: dict[str, Any]
    fingerprint: str | None = None
    plan: str | None = None
    name: str | None = None
    calibration: dict[str, Any] | None = None
    calibrations: dict[str, dict[str, Any]] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    inputs: list[Input] = field(default_factory=list)
    outputs_sha256: dict[str, str] = field(default_factory=dict)
    files: list[str] | None = None
    dtype: str | None = None
    warnings: list[str] = field(default_factory=list)
    trust_remote_code: list[str] = field(default_factory=list)
    adapter: dict[str, Any] | None = None
    engine: str | None = None
    reason: str | None = None
    seed: int | None = None
    distances: dict[str, float] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    steps: int | None = None
    merging: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    drift: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    along: list[int] | None = None
    trained: int | None = None
    step: int | None = None
    mergetool: str | None = None
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """As it is written: without what does not belong to its kind or is not known."""
        other = _OF_ALIGN if self.kind == "merge" else _OF_MERGE
        found = {key: value for key, value in _known(self).items() if key not in other}
        first = {key: found[key] for key in ("schema", "mergetool", "kind") if key in found}
        return {**first, **found, "inputs": [one.to_json() for one in self.inputs]}

    @property
    def calibrated_on(self) -> str | None:
        """The calibrations in a sentence each for a model card; None where there is none."""
        lines = [] if self.calibration is None else [_calibrated("Calibrated", self.calibration)]
        lines += [_calibrated(f"`{model}` calibrated", facts) for model, facts in (self.calibrations or {}).items()]
        return "\n\n".join(lines) or None

    def write(self, directory: Path) -> None:
        """Write it into a result; others see all of it or nothing."""
        write_whole(directory / MANIFEST, json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Manifest:
        """Any of the three forms.

        Raises:
            ValueError: it is not an account of a merge or an alignment, or of a newer schema.
        """
        if not isinstance(found, dict) or not isinstance(found.get("recipe"), dict):
            raise ValueError("is not an account of a merge or an alignment")
        schema = found.get("schema", 1)
        if not isinstance(schema, int) or schema > SCHEMA:
            raise ValueError(f"is of schema {schema}, and this version knows {SCHEMA}")
        known = {key: value for key, value in found.items() if key in {one.name for one in fields(cls)}}
        inputs = found.get("inputs") or []
        if "schema" not in found and found.get("kind") != "merge":
            inputs = _inputs_of_old_alignment(found)
            known["kind"] = "align"
            known["mergetool"] = (found.get("versions") or {}).get("mergetool")
        if not isinstance(inputs, list):
            raise ValueError("has inputs that are no list")
        kinds = get_type_hints(cls)
        if wrong := next((key for key, value in known.items() if key != "inputs" and not _is(value, kinds[key])), None):
            raise ValueError(f"says {wrong}: {str(known[wrong])[:60]!r}, which cannot be")
        known["inputs"] = [Input.from_json(one) for one in inputs if isinstance(one, dict) and "model" in one]
        hints = get_type_hints(Input)
        if any(not _is(getattr(one, key), kind) for one in known["inputs"] for key, kind in hints.items()):
            raise ValueError("has inputs that are not told of as they are written")
        return cls(**{**known, "schema": schema})

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """The account of a finished result.

        Raises:
            CheckpointError: there is none, or it cannot be read or understood.
        """
        path = directory / MANIFEST
        again = "make the result again"
        try:
            return cls.from_json(reading.parsed_file(path))
        except FileNotFoundError:
            raise CheckpointError(f"{directory}: has no {MANIFEST}", "name a directory that merge or align has made") from None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})", "check its permissions") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error})", again) from None
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: {error}", again) from None


def _is(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of an annotated kind."""
    arguments = get_args(kind)
    if kind is Any:
        return True
    if get_origin(kind) is UnionType:
        return any(_is(value, one) for one in arguments)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is(one, arguments[1]) for one in value.values())
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is(one, arguments[0]) for one in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


_OF_MERGE = {"plan", "engine", "reason", "seed", "distances", "kept"}
_OF_ALIGN = {"steps", "merging", "metrics", "drift", "data", "seeds", "along", "trained", "step"}


def _known(record: Any) -> dict[str, Any]:
    found = {one.name: getattr(record, one.name) for one in fields(record)}
    return {key: value for key, value in found.items() if value is not None}


def _inputs_of_old_alignment(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Models by `origins`, and the hashes of their headers from `inputs`, by role."""
    recipe, headers = found["recipe"], found.get("inputs") or {}
    roles = {recipe.get("sft_model"): "sft", recipe.get("base_model"): "base"}
    inputs = []
    for one in found.get("origins") or []:
        if isinstance(one, dict):
            role = roles.get(one.get("model"))
            inputs.append({**one, "role": role, "headers_sha256": headers.get(role) if isinstance(headers, dict) else None})
    return inputs
