"""mergetool push: a finished checkpoint to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mergetool.cli.shell import echo, emit_json, note, size

if TYPE_CHECKING:
    from mergetool.hub.push import Pushed


def push(
    directory: Annotated[Path, typer.Argument(help="What merge or align has made.", show_default=False)],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME; made if it does not exist.", show_default=False)],
    public: Annotated[bool, typer.Option("--public", help="Everyone may see it; else a new repository is private.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch, made if need be.", show_default=False)] = None,
    pr: Annotated[bool, typer.Option("--pr", help="Open a pull request.")] = False,
    results: Annotated[
        Path | None,
        typer.Option(help="OUT of the compare that measured it: its test scores go into the card.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Upload a finished checkpoint with its model card; what is there already is not uploaded again."""
    pushed = upload(directory, repo, public=public, revision=revision, pull_request=pr, results=results)
    if json:
        emit_json(pushed.as_facts())
        return
    tell_pushed(pushed)


def upload(directory: Path, repo: str, *, results: Path | None = None, **options: Any) -> Pushed:
    """Pushes, with the scores of a study where one is named."""
    from mergetool.hub.push import push

    if results is None:
        return push(directory, repo, **options)
    from mergetool.study.report.card_scores import evaluations

    return push(directory, repo, measured=lambda manifest: evaluations(results, manifest), **options)


def tell_pushed(pushed: Pushed) -> None:
    """What was done, and the address."""
    if pushed.uploaded:
        note(f"uploaded {len(pushed.uploaded)} files, {size(pushed.nbytes)}: {', '.join(pushed.uploaded)}")
    else:
        note("the repository has all of it already; nothing was uploaded")
    if pushed.left:
        more = f" and {len(pushed.left) - 5} more" if len(pushed.left) > 5 else ""
        note(f"left here, no part of the result: {', '.join(pushed.left[:5])}{more}")
    note(f"{pushed.repo} is {'private' if pushed.private else 'public'}; {pushed.revision} is at {pushed.commit[:12]}")
    echo(pushed.pull_request or pushed.url)
