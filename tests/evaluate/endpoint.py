"""A real HTTP server that answers as an OpenAI-compatible endpoint does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mergetool.evaluate import JudgeSettings

KEY = "sk-test-0123456789"
Say = Callable[[str, str, str], str]
"""(prompt, answer A, answer B) -> the judge's reply."""


def part(text: str, name: str) -> str:
    return text.split(f"<{name}>\n", 1)[1].split(f"\n</{name}>", 1)[0]


class Seen:
    """What the server was asked, and failures that it is to give first."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.fail_first: list[tuple[int, dict[str, str]]] = []  # (status, headers), used up one by one
        self.lock = threading.Lock()
        self.url = ""


@contextmanager
def judge(say: Say) -> Iterator[Seen]:
    """Serves a judge on a free port of this machine."""
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.headers.get("Authorization") != f"Bearer {KEY}":
                return self._send(401, {"error": {"message": f"Incorrect API key: {self.headers.get('Authorization')}"}})
            if body["model"] != "judge":
                return self._send(404, {"error": {"message": "no such model"}})
            with seen.lock:
                failure = seen.fail_first.pop(0) if seen.fail_first else None
                if failure is None:
                    seen.bodies.append(body)
            if failure:
                return self._send(failure[0], {"error": {"message": "later"}}, failure[1])
            text = body["messages"][-1]["content"]
            reply = say(part(text, "user"), part(text, "answer A"), part(text, "answer B"))
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}
            return self._send(
                200, {"id": "x", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}
            )

        def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def settings(url, **changes):
    """A judge behind that address, four questions at a time."""
    return JudgeSettings(url, "judge", **{"concurrency": 4, "timeout": 20.0, "retries": 2, **changes})
