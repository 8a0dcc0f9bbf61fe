"""Runs a study: whatever is not in results.jsonl yet, one candidate after the other."""

from __future__ import annotations

import re
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergetool import __version__
from mergetool.errors import MergetoolError, OutputError
from mergetool.study.bench import Bench
from mergetool.study.candidates import Candidate, expand
from mergetool.study.choose import Summary, summarise
from mergetool.study.identity import checkpoint_identity, data_identity, digest
from mergetool.study.recipe import StudyRecipe
from mergetool.study.results import Results
from mergetool.study.splits import metrics_identity

RESULTS = "results.jsonl"
Progress = Callable[[int, int, str], None]
"""Receives (candidates done, candidates in all, what is being done)."""


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        rows: one line of results.jsonl per candidate, in the study's order.
        summary: groups, front and choice.
        out: the directory.
        ran: how many candidates this call made and measured; the others were there.
        failures: (candidate, error line) of those that could not be measured.
        bugs: whether a failure is ours and not the user's input.
    """

    rows: list[dict[str, Any]]
    summary: Summary
    out: Path
    ran: int
    failures: list[tuple[str, str]] = field(default_factory=list)
    bugs: bool = False


def slug(name: str) -> str:
    """A candidate's name as a directory name: `ondare K=5 seed=0` is `ondare-K5-seed0`."""
    spelled = name.replace("Σ", "sum").replace("α", "alpha").replace("β", "beta").replace("=", "")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", spelled).strip("-.") or "candidate"


def run_study(recipe: StudyRecipe, out: str | Path, fresh: bool = False, progress: Progress | None = None,
              device: str | None = None, dtype: str | None = None) -> StudyResult:
    """Makes and measures every candidate.

    Args:
        recipe: the study.
        out: directory for results.jsonl and the aligned checkpoints; made if need be.
        fresh: measure and train everything anew.
        progress: told what is being done.
        device, dtype: of the model that is measured; see `mergetool.evaluate.run.load_model`.

    Raises:
        MergetoolError: the study itself cannot be run: the SFT model, the data or the output directory. What goes
            wrong with one candidate is in the result instead.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file", "give a directory")
    if out.exists() and any(out.iterdir()) and not (out / RESULTS).exists() and not (out / "candidates").exists():
        raise OutputError(f"{out}: holds something that is not a study",
                          "give a new directory, or that of an earlier run")
    run = _Run(recipe, out, fresh, device, dtype)
    rows, failures, bugs = [], [], False
    for at, candidate in enumerate(run.candidates):
        tell = (lambda what, at=at: progress(at, len(run.candidates), what)) if progress else lambda what: None
        row = run.row(candidate, tell)
        rows.append(row)
        if row.get("error"):
            failures.append((candidate.name, row["error"]))
            bugs = bugs or row.get("bug", False)
    return StudyResult(rows, summarise(recipe, run.candidates, rows), out, run.ran, failures, bugs)


class _Run:
    """What one run of a study carries from candidate to candidate."""

    def __init__(self, recipe: StudyRecipe, out: Path, fresh: bool, device: str | None, dtype: str | None) -> None:
        self.recipe, self.out, self.fresh = recipe, out, fresh
        self.candidates = expand(recipe)
        self.scoring = metrics_identity(recipe)
        self.models = {"SFT": recipe.source(recipe.models.sft)}
        if recipe.models.base:
            self.models["BASE"] = recipe.source(recipe.models.base)
        if isinstance(recipe.models.rlhf, str):
            self.models["RLHF"] = recipe.source(recipe.models.rlhf)
        self.identities = {name: checkpoint_identity(source) for name, source in self.models.items()}
        out.mkdir(parents=True, exist_ok=True)
        self.results = Results(out / RESULTS, fresh)
        self.bench = Bench(recipe, out, self.identities["SFT"], self.scoring, device, dtype)
        self.by_name = {one.name: one for one in self.candidates}
        self.trained: set[str] = set()
        self.failed: set[str] = set()
        self.ran = 0

    def making(self, candidate: Candidate) -> str:
        """What a candidate is: equal values, equal weights."""
        if candidate.path is not None:
            return digest(["checkpoint", checkpoint_identity(candidate.path)])
        names = dict(self.identities)
        if candidate.needs:
            names["RLHF"] = self.making(self.by_name[candidate.needs])
        recipe = candidate.placed(names)
        parts: list[Any] = [candidate.kind, recipe]
        if candidate.kind == "align" and recipe:
            parts.append([data_identity(_source(recipe["data"][key])) for key in ("train",) if key in recipe["data"]])
        return digest(parts)

    def row(self, candidate: Candidate, tell: Callable[[str], None]) -> dict[str, Any]:
        """The candidate's line of results: read back, or made and measured now."""
        row: dict[str, Any] = {"name": candidate.name, "group": candidate.group, "family": candidate.family,
                               "kind": candidate.kind, "seed": candidate.seed, "settings": candidate.settings,
                               "recipe": self.shown_recipe(candidate), "error": None}
        try:
            row["key"] = digest([self.making(candidate), self.scoring, self.identities["SFT"]])
            if found := self.results.done(row["key"]):
                return {**found, **row}  # the same weights may have another name by now
            tell(f"{candidate.name}: {'training' if candidate.kind == 'align' else 'loading'}")
            began = time.perf_counter()
            put = self.make(candidate)
            made = time.perf_counter()
            tell(f"{candidate.name}: measuring")
            row["scores"] = self.bench.score(put)
            row["seconds"] = {"make": round(made - began, 3), "measure": round(time.perf_counter() - made, 3)}
        except Exception as error:
            if candidate.name == "sft":
                raise  # every reward is relative to it
            row.setdefault("key", digest(["failed", candidate.name, self.scoring]))
            row["error"] = _line(error)
            self.failed.add(candidate.name)
            if not isinstance(error, MergetoolError):
                row["bug"] = True
                log = self.out / "errors" / f"{slug(candidate.name)}.txt"
                log.parent.mkdir(exist_ok=True)
                log.write_text(traceback.format_exc(), encoding="utf-8")
        self.ran += 1
        self.results.add({**row, "version": __version__, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        return row

    def make(self, candidate: Candidate) -> Callable[[Any], None]:
        """Trains what has to be trained; returns what puts the candidate's weights into the live model."""
        if candidate.kind == "align":
            place = self.train(candidate)
            return lambda live: live.put_checkpoint(place)
        if candidate.path is not None:
            return lambda live: live.put_checkpoint(candidate.path)
        if candidate.needs:
            if candidate.needs in self.failed:
                raise MergetoolError(f"its RLHF model '{candidate.needs}' could not be made", "mend that one first")
            self.train(self.by_name[candidate.needs])
        recipe = self.shown_recipe(candidate) or {}
        return lambda live: live.put_merge(recipe, candidate.name)

    def place(self, name: str) -> Path:
        return self.out / "candidates" / slug(name)

    def train(self, candidate: Candidate) -> Path:
        """The checkpoint of an align candidate: trained now, or by an earlier run of the same recipe.

        NAME.yaml beside it is the align recipe, headed by the key of what it made.
        """
        import yaml

        from mergetool.align import align_recipe
        from mergetool.align.run import align

        place = self.place(candidate.name)
        note = place.with_name(place.name + ".yaml")
        head = f"# mergetool align {note.name} {place.name}   (made by `mergetool compare`, {self.making(candidate)})\n"
        same = note.exists() and note.read_text(encoding="utf-8").startswith(head)
        anew = self.fresh and candidate.name not in self.trained
        if same and not anew and (place / "config.json").exists():
            return place
        recipe = align_recipe(self.shown_recipe(candidate) or {}, self.out, candidate.name)
        place.parent.mkdir(exist_ok=True)
        if note.exists() and (place / "mergetool.json").exists():
            shutil.rmtree(place)  # ours, by the note: another recipe had this name, or --fresh was asked for
        body = yaml.safe_dump(recipe.as_written(), sort_keys=False, allow_unicode=True)
        note.write_text(head + body, encoding="utf-8")
        align(recipe, place, fresh=anew or not same)
        self.trained.add(candidate.name)
        return place

    def shown_recipe(self, candidate: Candidate) -> dict[str, Any] | None:
        """The recipe with real paths: what a user would run by hand."""
        places = {name: str(source) for name, source in self.models.items()}
        if candidate.needs:
            places["RLHF"] = str(self.place(candidate.needs).absolute())
        return candidate.placed(places)


def _source(text: str) -> Path | str:
    from mergetool.sources import resolve_source

    return resolve_source(text, Path("/"))


def _line(error: Exception) -> str:
    if isinstance(error, MergetoolError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
