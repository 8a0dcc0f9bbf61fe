"""Makes and measures one candidate: trains it, or merges it in memory, and puts it on the bench."""

from __future__ import annotations

import re
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mergetool import hub
from mergetool.errors import CheckpointError, MergetoolError, OutputError, without_tokens
from mergetool.fingerprints import checkpoint_identity, data_identity, digest, legacy_checkpoint_identity
from mergetool.study.averages import learned_recipe
from mergetool.study.bench import Bench
from mergetool.study.candidates import expand
from mergetool.study.grid import Candidate
from mergetool.study.recipe import StudyRecipe
from mergetool.study.splits import metrics_identity

Identify = Callable[[Path | str], str]
"""What tells a checkpoint from others: by its content, or as it was before (`legacy_checkpoint_identity`)."""


def slug(name: str) -> str:
    """A candidate's name as a directory name: `ondare K=5 seed=0` is `ondare-K5-seed0`."""
    spelled = name.replace("Σ", "sum").replace("α", "alpha").replace("β", "beta").replace("=", "")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", spelled).strip("-.") or "candidate"


class Maker:
    """What is known of a study's candidates before any of them is made, and how each is made.

    Args:
        recipe: the study.
        out: its directory.
        fresh: train again what an earlier run has trained.
        device, dtype: of the model that is measured.

    Raises:
        MergetoolError: a model or a data file of the study is missing, or its candidates make no sense.
    """

    def __init__(
        self, recipe: StudyRecipe, out: Path, fresh: bool = False, device: str | None = None, dtype: str | None = None
    ) -> None:
        self.recipe, self.out, self.fresh = recipe, out, fresh
        hub.hold(recipe.commits)
        self._device = device
        self._learned: dict[str, dict[str, Any]] = {}  # merge recipes of AMA candidates
        self.candidates = expand(recipe)
        self.by_name = {one.name: one for one in self.candidates}
        self.scoring = metrics_identity(recipe)
        self.models = {"SFT": recipe.source(recipe.models.sft)}
        if recipe.models.base:
            self.models["BASE"] = recipe.source(recipe.models.base)
        if isinstance(recipe.models.rlhf, str):
            self.models["RLHF"] = recipe.source(recipe.models.rlhf)
        sft = checkpoint_identity(self.models["SFT"])
        self.along: dict[str, list[float]] = {}  # name of a run -> the places in it whose weights are candidates too
        for one in self.candidates:
            if one.kind == "along":
                self.along.setdefault(one.needs or "", []).append(_at(one))
        self.bench = Bench(recipe, out, sft, self.scoring, device, dtype)

    def making(self, candidate: Candidate, identify: Identify = checkpoint_identity) -> str:
        """What a candidate is: equal values, equal weights."""
        if candidate.path is not None:
            return digest(["checkpoint", identify(candidate.path)])
        if candidate.kind == "along":
            return digest(["along", self.making(self.by_name[candidate.needs or ""], identify), _at(candidate)])
        names = {name: identify(source) for name, source in self.models.items()}
        if candidate.needs:
            names["RLHF"] = self.making(self.by_name[candidate.needs], identify)
        recipe = candidate.placed(names) or {}
        parts: list[Any] = [candidate.kind, recipe]
        if candidate.kind in ("align", "ama"):  # rows by what they hold: a study whose files have moved trains nothing again
            files = {key: recipe["data"][key] for key in ("train", "eval") if recipe["data"].get(key)}
            rows = {key: data_identity(_source(text)) for key, text in files.items()}
            parts = [candidate.kind, {**recipe, "data": {**recipe["data"], **rows}}]
            if "reward" in recipe:
                parts[1]["reward"] = [_reward_identity(text, identify) for text in recipe["reward"]]
        elif candidate.kind == "merge":
            places = [_source(part) for name in _model_names(recipe) for part in name.split("+")]
            parts.append([identify(one) for one in places if isinstance(one, str) or one.is_dir()])
        return digest(parts)

    def key(self, candidate: Candidate) -> str:
        """Names the candidate's scores: its weights, the metrics, the rows and the reference."""
        return digest([self.making(candidate), self.scoring, checkpoint_identity(self.models["SFT"])])

    def legacy_key(self, candidate: Candidate) -> str:
        """The key that a study had before identity was content: what was measured under it is not measured again."""
        identify = legacy_checkpoint_identity
        return digest([self.making(candidate, identify), metrics_identity(self.recipe, identify), identify(self.models["SFT"])])

    def about(self, candidate: Candidate) -> dict[str, Any]:
        """The part of a line of results that is known beforehand."""
        about = {
            "name": candidate.name,
            "group": candidate.group,
            "family": candidate.family,
            "kind": candidate.kind,
            "seed": candidate.seed,
            "settings": candidate.settings,
            "recipe": self.shown_recipe(candidate),
            "error": None,
        }
        try:
            return {"key": self.key(candidate), **about}
        except MergetoolError as error:
            return {"key": digest(["failed", candidate.name, self.scoring]), **about, "error": str(error)}

    def row(self, candidate: Candidate, tell: Callable[[str], None] = lambda what: None) -> dict[str, Any]:
        """The candidate's line of results, made and measured now; where that fails, a line that says why.

        Raises:
            Exception: it is the SFT model that failed: every reward is relative to it.
        """
        row = self.about(candidate)
        if row["error"]:
            return row
        try:
            tell(f"{candidate.name}: {'training' if candidate.kind in ('align', 'ama') else 'loading'}")
            began, busy = time.perf_counter(), time.process_time()
            put = self._make(candidate)
            if candidate.kind == "ama":
                row["learned"] = self.merge_of(candidate)
            made = time.perf_counter()
            tell(f"{candidate.name}: measuring")
            row["scores"] = self.bench.score(put)
            row["seconds"] = {
                "make": round(made - began, 3),
                "measure": round(time.perf_counter() - made, 3),
                "cpu": round(time.process_time() - busy, 3),
            }  # does not grow on a busy machine
        except Exception as error:
            if candidate.name == "sft":
                raise
            row["error"] = (
                str(error)
                if isinstance(error, MergetoolError)
                else without_tokens(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            )
            if not isinstance(error, MergetoolError):
                row["bug"] = True
                log = self.out / "errors" / f"{slug(candidate.name)}.txt"
                log.parent.mkdir(exist_ok=True)
                log.write_text(without_tokens(traceback.format_exc()), encoding="utf-8")
        return row

    def _make(self, candidate: Candidate) -> Callable[[Any], None]:
        """Trains what has to be trained; returns what puts the candidate's weights into the live model."""
        if candidate.kind == "align":
            place = self.train(candidate, self.fresh)
            return lambda live: live.put_checkpoint(place)
        if candidate.path is not None:
            return lambda live: live.put_checkpoint(candidate.path)
        if candidate.kind == "along":
            return lambda live: live.put_checkpoint(self.place_along(candidate))
        recipe = self.merge_of(candidate)
        return lambda live: live.put_merge(recipe, candidate.name)

    def merge_of(self, candidate: Candidate) -> dict[str, Any]:
        """The merge recipe of a merge candidate; where its ratios are learned, they are learned now or read back."""
        recipe = self.shown_recipe(candidate) or {}
        if candidate.kind != "ama":
            return recipe
        if candidate.name not in self._learned:
            note = self.place(candidate.name).with_name(slug(candidate.name) + ".ratios.yaml")
            self._learned[candidate.name] = learned_recipe(recipe, note, self._device, self.fresh)
        return self._learned[candidate.name]

    def train(self, candidate: Candidate, fresh: bool) -> Path:
        """The checkpoint of an align candidate: trained now, or by an earlier run of the same recipe.

        NAME.yaml beside it is the align recipe, headed by the key of what it made.
        """
        from mergetool.align import align_recipe
        from mergetool.align.run import align

        if not fresh and self.is_made(candidate):
            return self.place(candidate.name)
        recipe = align_recipe(self.shown_recipe(candidate) or {}, self.out, candidate.name)
        place, same = self.claim(candidate, recipe.as_written())
        align(recipe, place, fresh=fresh or not same, along=self.along.get(candidate.name, ()))
        return place

    def is_made(self, candidate: Candidate) -> bool:
        """Whether the candidate's own directory holds it, and for a run all the models along it that are asked for."""
        from mergetool.align.along import place_of

        place, note, _ = self._note(candidate)
        if not (self._is_its_own(note, candidate) and (place / "config.json").exists()):
            return False
        return all(place_of(place, at) for at in self.along.get(candidate.name, ()))

    def _note(self, candidate: Candidate) -> tuple[Path, Path, str]:
        """Directory, recipe file beside it, and how that file's first line ends, which says what is in the directory."""
        place = self.place(candidate.name)
        note = place.with_name(place.name + ".yaml")
        return place, note, _made(self.making(candidate))

    def _is_its_own(self, note: Path, candidate: Candidate) -> bool:
        """Whether the note says that the directory is this candidate's, in today's terms or in those before."""
        makings = self.making(candidate), self.making(candidate, legacy_checkpoint_identity)
        return any(_says(note, _made(making)) for making in makings)

    def claim(self, candidate: Candidate, recipe: dict[str, Any]) -> tuple[Path, bool]:
        """The candidate's directory, cleared of what is not this candidate, and its recipe beside it.

        Returns:
            The directory, and whether the note beside it was this candidate's before: then work on it may resume.
        """
        import yaml

        place, note, made = self._note(candidate)
        same = self._is_its_own(note, candidate)
        place.parent.mkdir(exist_ok=True)
        if note.exists() and (place / "mergetool.json").exists():
            shutil.rmtree(place)  # ours, by the note: another recipe had this name, or it has to be made again
        command = "align" if candidate.kind == "align" else "merge"
        head = f"# mergetool {command} {note.name} {place.name}   {made}\n"
        note.write_text(head + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return place, same

    def place_along(self, candidate: Candidate) -> Path:
        """Where a model along a run lies.

        Raises:
            CheckpointError: its run has been removed, or made without it.
        """
        from mergetool.align.along import place_of

        run = self.place(candidate.needs or "")
        found = place_of(run, _at(candidate))
        if found is None:
            raise CheckpointError(f"{run}: it holds no checkpoint at {_at(candidate):g}", "run again with --fresh")
        return found

    def place(self, name: str) -> Path:
        """Where an align candidate's checkpoint lies."""
        return self.out / "candidates" / slug(name)

    def shown_recipe(self, candidate: Candidate) -> dict[str, Any] | None:
        """The recipe with real paths: what a user would run by hand."""
        places = {name: str(source) for name, source in self.models.items()}
        if candidate.needs and candidate.kind != "along":
            places["RLHF"] = str(self.place(candidate.needs).absolute())
        return candidate.placed(places)


def _at(candidate: Candidate) -> float:
    """The place in its run of a model along it: a step, or a share below 1."""
    return candidate.settings["step" if "step" in candidate.settings else "share"]


def _made(making: str) -> str:
    return f"(made by `mergetool compare`, {making})"


def _says(note: Path, made: str) -> bool:
    """Whether a note's first line ends in this.

    Raises:
        OutputError: it cannot be read just now: what lies beside it may be this candidate's, and must not be removed.
    """
    try:
        with note.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n").endswith(made)
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    except OSError as error:
        raise OutputError(f"{note}: cannot be read ({error.strerror or error})", "check the disk and run again") from error


def _reward_identity(text: str, identify: Identify) -> str:
    """A reward by what it is: a function's file by its bytes, a model by its weights."""
    file, _, function = text.rpartition(":")
    if file.endswith(".py"):
        return f"{data_identity(Path(file))}:{function}"
    return identify(_source(text))


def _source(text: str) -> Path | str:
    from mergetool.config.sources import resolve_source

    return resolve_source(text, Path("/"))


def _model_names(recipe: dict[str, Any]) -> list[str]:
    """Every model that a merge recipe names."""
    entries = [recipe, *recipe.get("models", [])]
    return [name for entry in entries for key in ("model", "base_model", "relative_to") if (name := entry.get(key))]
