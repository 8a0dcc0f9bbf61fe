"""What answers in the Hub's place is told of in one line, whatever it says; no password of its address is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.hub.program import Program
from tests.hub.store import OWNER

ANSWERS = [b"<html>log in</html>", b'{"broken": ', b"[]", b"null", b'"x"', b"{}", b"\xff\xfe", b"[" * 5000, b'{"siblings": 3}']


class Odd(BaseHTTPRequestHandler):
    answer = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(Odd.answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(Odd.answer)

    do_HEAD = do_POST = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    server = HTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = tmp_path_factory.mktemp("odd")
    (root / "merge.yaml").write_text("merge_method: linear\nmodels:\n- {model: lab/a, parameters: {weight: 1}}\n")
    program = Program(f"http://me:pa55word@127.0.0.1:{server.server_address[1]}", root / "hf", root)
    yield program
    program.close()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_an_answer_of_another_form_is_one_line(odd: Program, answer: bytes, tmp_path: Path) -> None:
    Odd.answer = answer
    for words in (("check", odd.home.parent / "merge.yaml"), ("push", tmp_path, "me/x"), ("inspect", "lab/a")):
        done = odd(*words, token=OWNER)
        assert done.code == 2, (words, done)
        assert "Traceback" not in done.err
        assert "pa55word" not in done.err
        assert done.line
