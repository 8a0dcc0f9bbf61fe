"""How the Hub is asked: what is asked again, how long is waited, and what each refusal becomes."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from huggingface_hub import errors

from mergetool.errors import DataError, HubError, MergetoolError
from mergetool.hub import requests
from mergetool.hub.requests import http_error, patiently, refusals


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The network is allowed, and a wait is noted instead of waited."""
    waits: list[float] = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(requests.time, "sleep", waits.append)
    return waits


def answered(status: int, kind: type[errors.HfHubHTTPError] = errors.HfHubHTTPError, **headers: str) -> Exception:
    """What the client raises for an answer of the server; the response is of the HTTP library that the client is made with."""
    library = __import__(http_error().__module__.partition(".")[0])
    request = library.Request("GET", "https://hub/api")
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return kind(f"{status} said the server", response=library.Response(status, headers=names, request=request))


def failing(*failures: Exception) -> Callable[[], str]:
    left = list(failures)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


def test_the_error_of_the_http_library_is_above_the_clients_own() -> None:
    assert issubclass(errors.HfHubHTTPError, http_error())
    assert not issubclass(http_error(), errors.HfHubHTTPError)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_hub_is_asked_again_and_waited_for_longer_each_time(status: int, online: list[float]) -> None:
    assert patiently(failing(*[answered(status)] * 3)) == "done"
    assert online == [1.0, 2.0, 4.0]
    with pytest.raises(errors.HfHubHTTPError):
        patiently(failing(*[answered(status)] * 4))


def test_the_hub_says_how_long_to_wait(online: list[float]) -> None:
    assert patiently(failing(answered(429, retry_after="7"), answered(429, ratelimit='"api";r=0;t=11'))) == "done"
    assert online == [7.0, 11.0]
    with pytest.raises(errors.HfHubHTTPError):
        patiently(failing(answered(429, retry_after="3600")))  # an hour is not waited for
    assert len(online) == 2


@pytest.mark.parametrize("failure", [answered(404), answered(403), answered(401)])
def test_a_refusal_is_not_asked_again(failure: Exception, online: list[float]) -> None:
    with pytest.raises(errors.HfHubHTTPError):
        patiently(failing(failure))
    assert online == []


def test_a_connection_that_drops_is_tried_again_and_one_that_nobody_answers_is_not(online: list[float]) -> None:
    assert patiently(failing(ConnectionResetError())) == "done"
    library = __import__(http_error().__module__.partition(".")[0])
    with pytest.raises(library.ConnectError):
        patiently(failing(library.ConnectError("no route")))
    assert len(online) == 1


def test_without_the_network_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch, online: list[float]) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(errors.HfHubHTTPError):
        patiently(failing(answered(503)))
    assert online == []


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (answered(404, errors.RepositoryNotFoundError), "no such repository at"),
        (answered(403, errors.GatedRepoError), "is gated, and its owner has not let you in; ask for access on its page"),
        (answered(404, errors.RevisionNotFoundError), "no such revision; check what follows the @"),
        (answered(404, errors.RemoteEntryNotFoundError), "a file is missing in the repository"),
        (answered(403), "access is refused (403 said the server)"),
        (answered(429, retry_after="90"), "asks to wait (too many requests); run the same command again in 90 seconds"),
        (answered(500), "the Hub answers 500"),
        (errors.HFValidationError("two/many/parts"), "is not a Hub id (two/many/parts); write org/name"),
        (OSError(errno.ENOSPC, "no space"), "the disk of the cache is full; make room"),
        (ConnectionResetError("reset"), "cannot be reached (ConnectionResetError: reset)"),
        (RuntimeError("who knows"), "the Hub's client gives up (who knows)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_refusal_is_one_line_with_the_next_step(failure: Exception, says: str) -> None:
    with pytest.raises(HubError) as caught, refusals("org/name"):
        raise failure
    assert str(caught.value).startswith("org/name: ")
    assert says in str(caught.value)
    assert ";" in str(caught.value)


def test_what_an_upload_wraps_is_looked_into() -> None:
    wrapped = RuntimeError("an error occurred while uploading")
    wrapped.__cause__ = answered(403)
    with pytest.raises(HubError, match="access is refused"), refusals("org/name"):
        raise wrapped


def test_an_error_of_ours_passes_and_one_without_a_kind_gets_the_callers() -> None:
    with pytest.raises(DataError, match=r"^rows: none; give some$"), refusals("org/name"):
        raise DataError("rows: none", "give some")
    with pytest.raises(DataError, match=r"^org/name: not in the cache; fetch it$"), refusals("org/name", DataError):
        raise MergetoolError("not in the cache", "fetch it")
