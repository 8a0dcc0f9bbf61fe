"""The artifact of a calibration: one safetensors file, read a tensor at a time, and the projectors that it makes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mergetool import reading
from mergetool.errors import CheckpointError, RecipeError
from mergetool.methods.settings import of_projection
from mergetool.ops.projection import Factor, Moments, Rule, covered, factor, shares
from mergetool.ops.projector import Projector

FORMAT, VERSION = "mergetool_calibration", 1
_AGAIN = "make it again: mergetool calibrate MODEL --data ROWS OUT"


@dataclass(frozen=True, slots=True)
class Site:
    """What is known of one second moment without reading it.

    Attributes:
        size: n, the number of inputs.
        trace: tr(C).
        count: vectors that C is the mean of (for a norm within attention heads: tokens × heads).
        rank: eigenpairs kept; n where C is diagonal.
        energy: the share of the trace that they hold.
        diagonal: C is a diagonal, without eigenvectors.
    """

    size: int
    trace: float
    count: int
    rank: int
    energy: float
    diagonal: bool = False


@dataclass(frozen=True, slots=True)
class Tensor:
    """Which moments belong to a parameter.

    Attributes:
        shape: the parameter's.
        columns, rows: keys of sites for its last and its second last dimension: none, one, or one for each expert (None
            for an expert that no token was sent to).
        constant: a bias, whose input is 1.
    """

    shape: tuple[int, ...]
    columns: tuple[str | None, ...] = ()
    rows: tuple[str | None, ...] = ()
    constant: bool = False


class Calibration:
    """Second moments of the inputs of a model's tensors.

    Args:
        facts: `model` and `rows` (identities and counts), `rank`, `energy`, `versions`.
        sites: key → Site.
        tensors: parameter name → Tensor.
        read: `read("KEY.values")`, `read("KEY.vectors")` give what is stored: fp32.
        label: what errors call it.
    """

    def __init__(
        self,
        facts: Mapping[str, Any],
        sites: Mapping[str, Site],
        tensors: Mapping[str, Tensor],
        read: Callable[[str], torch.Tensor],
        label: str = "the calibration",
    ) -> None:
        self.facts, self.sites, self.tensors, self.label = facts, sites, tensors, label
        self._read = read
        self.path: Path | None = None

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Opens a file; its header alone is read now.

        Raises:
            CheckpointError: there is no such file, or it is damaged or no calibration.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such calibration", "make it: mergetool calibrate MODEL --data ROWS OUT")
        try:
            with safe_open(path, framework="pt") as file:
                metadata, names = file.metadata() or {}, set(file.keys())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error})", _AGAIN) from None
        if FORMAT not in metadata:
            raise CheckpointError(f"{path}: is no calibration", _AGAIN)
        try:
            header = reading.parsed(metadata[FORMAT])
            if header["version"] != VERSION:
                raise CheckpointError(f"{path}: is of version {header['version']}, and this program reads {VERSION}", _AGAIN)
            sites = {key: Site(**site) for key, site in header["sites"].items()}
            tensors = {name: _tensor(one) for name, one in header["tensors"].items()}
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: its description is damaged ({error!r})", _AGAIN) from None
        if lost := sorted(f"{key}.values" for key in sites if f"{key}.values" not in names):
            raise CheckpointError(f"{path}: lacks {lost[0]}", _AGAIN)
        found = cls(header["facts"], sites, tensors, partial(_stored, path), str(path))
        found.path = path
        return found

    def save(self, path: str | Path) -> None:
        """Writes the file; nothing stands under its name before it is whole."""
        from safetensors.torch import save_file

        path = Path(path)
        names = [f"{key}.values" for key in self.sites]
        names += [f"{key}.vectors" for key, site in self.sites.items() if not site.diagonal]
        part = path.with_name(f".{path.name}.part")
        save_file({name: self._read(name) for name in names}, part, metadata=self._metadata())
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)

    def _metadata(self) -> dict[str, str]:
        header = {
            "facts": dict(self.facts),
            "sites": {key: asdict(site) for key, site in self.sites.items()},
            "tensors": {name: asdict(one) for name, one in self.tensors.items()},
        }
        # under one key: the library writes several in any order
        return {FORMAT: json.dumps({"version": VERSION, **header}, sort_keys=True)}

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is not None:
            return partial(Calibration.load, self.path), ()
        return super().__reduce__()  # type: ignore[return-value]

    def __deepcopy__(self, memo: dict[int, object]) -> Calibration:
        return self  # nothing in it changes

    def __contains__(self, tensor: str) -> bool:
        return tensor in self.tensors

    def moments(self, key: str) -> Moments:
        """The second moment of a site."""
        vectors = None if self.sites[key].diagonal else self._read(f"{key}.vectors")
        return Moments(self._read(f"{key}.values"), vectors, self.sites[key].trace)

    def check(self, parameters: Iterable[tuple[str, tuple[int, ...]]], rule: Rule) -> None:
        """Refuses parameters that it holds in another shape, and a rule that it cannot carry out.

        Args:
            parameters: (name, whole shape) of every tensor that is to be projected.
            rule: as `projector`.

        Raises:
            RecipeError: the rule makes no sense, or takes away more eigenvectors than were kept.
            CheckpointError: none of the tensors is known, or some have other shapes.
        """
        if (problem := of_projection(asdict(rule))) is not None:
            raise RecipeError(*problem)
        parameters = list(parameters)
        known = [(name, shape) for name, shape in parameters if name in self]
        unlike = [
            f"{name} ({list(shape)}, there {list(self.tensors[name].shape)})"
            for name, shape in known
            if self.tensors[name].shape != tuple(shape)
        ]
        if unlike:
            more = f" and {len(unlike) - 3} more" if len(unlike) > 3 else ""
            raise CheckpointError(f"{self.label} does not fit: {', '.join(unlike[:3])}{more}", "calibrate this very model")
        if parameters and not any(self.tensors[name].columns or self.tensors[name].rows for name, _ in known):
            raise CheckpointError(
                f"{self.label} knows none of the tensors ({parameters[0][0]}, …): it is of another model",
                "calibrate this very model",
            )
        for name, _ in known:
            for key in filter(None, (*self.tensors[name].columns, *self.tensors[name].rows)):
                self._covers(key, rule)

    def _covers(self, key: str, rule: Rule) -> None:
        site = self.sites[key]
        if rule.kind != "soft" and site.rank < site.size and not covered(self._values_only(key), rule):
            raise RecipeError(
                f"{self.label} keeps {site.rank} eigenvectors of {key} ({site.energy:.2%} of the trace), "
                "and the rule takes away more",
                "calibrate again with a larger --rank and --energy, or take away less",
            )

    def _values_only(self, key: str) -> Moments:
        values, site = self._read(f"{key}.values"), self.sites[key]
        return Moments(values, torch.empty(site.size, 0), site.trace)

    def check_model(self, identity: str, name: str) -> None:
        """Refuses a model that is not the one the rows went through.

        Args:
            identity: of `fingerprints.checkpoint_identity`.
            name: what errors call that model.

        Raises:
            CheckpointError: it is another model.
        """
        mine = self.facts.get("model", {})
        if mine.get("identity") not in (None, identity):
            raise CheckpointError(
                f"{self.label} is a calibration of {mine.get('source', 'another model')}, not of {name}",
                f"make it again: mergetool calibrate {name} --data ROWS OUT",
            )

    def projector(
        self, tensor: str, shape: tuple[int, ...], rule: Rule, held: dict[str, Factor | None] | None = None
    ) -> Projector:
        """F_P for a tensor; of one whose inputs are not known, `Rule.left` of the delta stays.

        Args:
            tensor: parameter name.
            shape: the whole tensor's.
            rule: which P.
            held: keeps factors from call to call, of one rule: tensors that read the same input share theirs.
        """
        one = self.tensors.get(tensor)
        if rule.identity:
            return Projector(shape)
        if one is None or not (one.columns or one.rows or one.constant):
            return Projector(shape, scale=rule.left)
        if one.constant:
            return Projector(shape, scale=1 - float(shares(Moments(torch.ones(1), None, 1.0), rule)))
        held = {} if held is None else held
        columns, rows = (tuple(self._factor(key, rule, held) for key in side) or (None,) for side in (one.columns, one.rows))
        return Projector(shape, columns, rows) if len(shape) > 1 else Projector(shape, rows=columns)

    def _factor(self, key: str | None, rule: Rule, held: dict[str, Factor | None]) -> Factor | None:
        if key is None:
            return None
        if key not in held:
            held[key] = factor(self.moments(key), rule)
        return held[key]


def _tensor(stored: dict[str, Any]) -> Tensor:
    return Tensor(tuple(stored["shape"]), tuple(stored["columns"]), tuple(stored["rows"]), bool(stored["constant"]))


def _stored(path: Path, name: str) -> torch.Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {name} cannot be read ({error})", _AGAIN) from None
