"""A stand-in for the Hub that speaks its API over HTTP, for the real client; what it was asked for can be counted.

It can be told to fail: to be busy, to drop a connection in the middle, to lose an answer.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.store import Blob, Repository, Request, Store


@dataclass(frozen=True)
class Asked:
    """One request, as it was answered. `weights` are bytes sent from beyond a safetensors header."""

    method: str
    path: str
    status: int
    sent: int = 0
    received: int = 0
    weights: int = 0
    token: str = ""


@dataclass
class Fault:
    """The next `times` requests that match `pattern` ("GET /path", or "GET /path bytes=0-7" for a part) go wrong.

    kind: "none" (it goes well), "busy" (429, `after` seconds), "refused" (403), "echo" (403, with the token in it), "broken"
    (500), "cut" (`after` bytes come or are sent, then the connection drops), "lost" (the request is carried out, and the
    connection drops before the answer).
    """

    pattern: str
    kind: str
    after: int = 0
    times: int = 1


class Refusal(Exception):
    """An answer with the Hub's own headers for errors."""

    def __init__(self, status: int, code: str = "", message: str = "", headers: dict | None = None) -> None:
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class StandIn:
    """The server, on a port of its own, until it is closed."""

    def __init__(self) -> None:
        self.store = Store()
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.watch: Callable[[str, int], None] | None = None
        """Called with (path, bytes of the file) when a weight file is asked for as a whole."""
        handler = type("Bound", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @contextmanager
    def counted(self) -> Iterator[list[Asked]]:
        """The requests of a block; fresh faults are gone after it."""
        start, found = len(self.asked), []
        try:
            yield found
        finally:
            found += self.asked[start:]
            self.faults.clear()

    def fault(self, method: str, path: str) -> Fault | None:
        with self.store.lock:
            for one in self.faults:
                if one.times > 0 and re.search(one.pattern, f"{method} {path}"):
                    one.times -= 1
                    return one
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    # --- one request ---------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.place, self.query = url.path, {key: values[-1] for key, values in parse_qs(url.query).items()}
        self.token = self.headers.get("authorization", "").removeprefix("Bearer ")
        self.received = 0
        part = self.headers.get("Range")
        fault = self.hub.fault(self.command, self.place if part is None else f"{self.place} {part}")
        self.cut = fault.after if fault and fault.kind == "cut" and self.command == "GET" else None
        try:
            self.body = self._read(fault.after if fault and fault.kind == "cut" and self.command != "GET" else None)
            if fault and fault.kind == "busy":
                raise Refusal(429, message="slow down", headers={"Retry-After": str(fault.after)})
            if fault and fault.kind == "refused":
                raise Refusal(403, message="the storage refuses")
            if fault and fault.kind == "echo":
                raise Refusal(403, message=f"echoed {self.token}")
            if fault and fault.kind == "broken":
                raise Refusal(500, message="out of order")
            self.person = self.hub.store.people.get(self.token)
            if self.token and self.person is None:
                raise Refusal(401, message="Invalid credentials in Authorization header")
            with self.hub.store.lock:
                answer = self._answer()
            if fault and fault.kind == "lost":
                self._drop(200)
                return
            self._send(*answer)
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message, **refusal.headers}
            headers |= {"X-Error-Code": refusal.code} if refusal.code else {}
            self._send(refusal.status, json.dumps({"error": refusal.message}).encode(), headers)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _read(self, cut: int | None) -> bytes:
        length = int(self.headers.get("content-length") or 0)
        chunks = []
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().strip() or b"0", 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        while length > sum(map(len, chunks)):
            some = self.rfile.read(min(1 << 16, length - sum(map(len, chunks))))
            if not some:
                raise ConnectionError
            chunks.append(some)
            if cut is not None and sum(map(len, chunks)) >= cut:
                self.received = sum(map(len, chunks))
                self._drop(0)
                raise ConnectionError
        data = b"".join(chunks)
        self.received = len(data)
        return data

    def _drop(self, status: int) -> None:
        self._note(status, 0)
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)  # a reset, as a cable that is pulled
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def _note(self, status: int, sent: int, weights: int = 0) -> None:
        self.hub.asked.append(Asked(self.command, self.place, status, sent, self.received, weights, self.token))

    def _send(self, status: int, body: bytes, headers: dict | None = None, weights: int = 0) -> None:
        whole = len(body)
        headers = {"Content-Length": str(whole), "X-Request-Id": "stand-in", **(headers or {})}
        body = b"" if self.command == "HEAD" else body[: self.cut]
        self._note(status, len(body), 0 if self.command == "HEAD" else max(0, weights - (whole - len(body))))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        if len(body) < whole and self.command != "HEAD":
            self.wfile.flush()
            self.close_connection = True

    # --- what it is asked ----------------------------------------------------------------------------------------

    def _answer(self) -> tuple:
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, self.place)
            if match and self.command in method.split("|"):
                return getattr(self, answer)(**{key: unquote(value or "") for key, value in match.groupdict().items()})
        raise Refusal(404, message=f"the stand-in does not know {self.command} {self.place}")

    def _json(self, value: Any, status: int = 200) -> tuple:
        return status, json.dumps(value).encode(), {"Content-Type": "application/json"}

    def _repository(self, kind: str, repo: str, write: bool = False, files: bool = False) -> Repository:
        found = self.hub.store.repositories.get((kind or "models", repo))
        allowed = found is not None and self.hub.store.may(self.person, found)
        if found is None or (found.private and not allowed):
            raise Refusal(404 if self.person else 401, "RepoNotFound", "Repository not found")
        if write and not allowed:
            raise Refusal(403, message="You don't have the rights to write here")
        if files and found.gated and not allowed:
            raise Refusal(403, "GatedRepo", "Access to this model is restricted")
        return found

    def _tree(self, found: Repository, revision: str) -> tuple[str, dict[str, Blob]]:
        commit = found.resolve(revision or "main")
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, found.trees[commit]

    def whoami(self) -> tuple:
        if self.person is None:
            raise Refusal(401, message="Invalid username or password.")
        return self._json({"type": "user", "auth": {"type": "access_token"}, **self.person})

    def create(self) -> tuple:
        asked = json.loads(self.body)
        if self.person is None:
            raise Refusal(401, message="Invalid username or password.")
        owner = asked.get("organization") or self.person["name"]
        name, kind = f"{owner}/{asked['name']}", f"{asked.get('type') or 'model'}s"
        url = {"url": f"{self.hub.url}/{name}", "name": name}
        if (kind, name) in self.hub.store.repositories:
            return self._json({**url, "error": "You already created this repo"}, 409)
        if owner not in [self.person["name"], *(org["name"] for org in self.person["orgs"])]:
            raise Refusal(403, message="You don't have the rights to create a model under this namespace")
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.store.create(name, kind, private)
        return self._json(url)

    def validate_yaml(self) -> tuple:
        """Some of the rules that the Hub has for cards."""
        import yaml

        content = json.loads(self.body)["content"]
        data = yaml.safe_load(content.split("---")[1]) if content.startswith("---") else {}
        bad = [one for one in data.get("base_model") or [] if not re.fullmatch(r"[\w.-]+/[\w.-]+", one)]
        errors = [f'"base_model" with value "{one}" is not valid' for one in bad]
        if data.get("base_model_relation") not in (None, "merge", "finetune", "adapter", "quantized"):
            errors.append('"base_model_relation" is not valid')
        return self._json({"errors": [{"message": one} for one in errors], "warnings": []}, 400 if errors else 200)

    def info(self, kind: str, repo: str, revision: str = "") -> tuple:
        found = self._repository(kind, repo)
        commit, tree = self._tree(found, revision)
        siblings = [
            {"rfilename": path, "size": len(blob.data), "blobId": blob.git}
            | ({"lfs": {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": 134}} if blob.large else {})
            for path, blob in sorted(tree.items())
        ]
        about = {"id": repo, "modelId": repo, "sha": commit, "private": found.private, "gated": found.gated or False}
        return self._json({**about, "tags": [], "downloads": 0, "siblings": siblings, "cardData": found.card})

    def tree(self, kind: str, repo: str, revision: str, path: str = "") -> tuple:
        _, tree = self._tree(self._repository(kind, repo), revision)
        inside = path + "/" if path else ""
        here = {name: blob for name, blob in tree.items() if name.startswith(inside)}
        if path and not here:
            raise Refusal(404, "EntryNotFound", "no such folder")
        flat = [blob.as_tree(n) for n, blob in here.items() if "recursive" in self.query or "/" not in n[len(inside) :]]
        folders = {inside + n[len(inside) :].split("/")[0] for n in here if "/" in n[len(inside) :]}
        return self._json(flat + [{"type": "directory", "path": one, "oid": "0" * 40, "size": 0} for one in folders])

    def paths_info(self, kind: str, repo: str, revision: str) -> tuple:
        _, tree = self._tree(self._repository(kind, repo), revision)
        if "json" in self.headers.get("content-type", ""):
            wanted = json.loads(self.body)["paths"]
        else:
            wanted = parse_qs(self.body.decode()).get("paths", [])
        files = [tree[path].as_tree(path) for path in wanted if path in tree]
        folders = [path for path in wanted if path not in tree and any(name.startswith(path + "/") for name in tree)]
        return self._json(files + [{"type": "directory", "path": one, "oid": "0" * 40, "size": 0} for one in folders])

    def resolve(self, kind: str, repo: str, revision: str, path: str) -> tuple:
        found = self._repository(kind, repo, files=True)
        commit, tree = self._tree(found, revision)
        if path not in tree:
            raise Refusal(404, "EntryNotFound", f"{path} does not exist", {"X-Repo-Commit": commit})
        blob = tree[path]
        data, status, start = blob.data, 200, 0
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{blob.oid}"'} if blob.large else {}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", "")):
            start, stop = int(wanted[1]), int(wanted[2] or len(data) - 1) + 1
            if start >= len(data):
                raise Refusal(416, message="range", headers={"Content-Range": f"bytes */{len(data)}"})
            headers["Content-Range"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
            data, status = data[start:stop], 206
        elif self.command == "GET" and blob.large and self.hub.watch:
            self.hub.watch(f"{repo}/{path}", len(data))
        end_of_header = 8 + struct.unpack("<Q", blob.data[:8])[0] if path.endswith(".safetensors") else len(blob.data)
        weights = max(0, start + len(data) - max(start, end_of_header)) if path.endswith(".safetensors") else 0
        weights = len(data) if path.endswith(".bin") else weights
        return status, data, headers, weights

    def branch(self, kind: str, repo: str, branch: str) -> tuple:
        found = self._repository(kind, repo, write=True)
        if branch in found.refs:
            return self._json({"error": "Reference already exists"}, 409)
        found.refs[branch] = found.refs["main"]
        return self._json({})

    def preupload(self, kind: str, repo: str, revision: str) -> tuple:
        found = self._repository(kind, repo, write=True)
        _, tree = self._tree(found, revision)
        files = []
        for one in json.loads(self.body)["files"]:
            large = self.hub.store.blob(one["path"], b"").large or one["size"] > 10_000_000
            there = tree.get(one["path"])
            mode = {"uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": there.oid if there else None}
            files.append({"path": one["path"], **mode})
        return self._json({"files": files})

    def batch(self, repo: str) -> tuple:
        self._repository("models", repo, write=True)
        objects = []
        for one in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/large/{one['oid']}", "header": {}}}
            there = one["oid"] in self.hub.store.large
            objects.append({**one} if there else {**one, "actions": upload})
        return self._json({"transfer": "basic", "objects": objects})

    def large(self, oid: str) -> tuple:
        from hashlib import sha256

        if sha256(self.body).hexdigest() != oid:
            raise Refusal(400, message="the content does not have this hash")
        self.hub.store.large[oid] = self.body
        return 200, b""

    def commit(self, kind: str, repo: str, revision: str) -> tuple:
        found = self._repository(kind, repo, write=True)
        commit, old = self._tree(found, revision)
        tree, summary = dict(old), ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                summary = value["summary"]
                if value.get("parentCommit") not in (None, commit):
                    raise Refusal(412, message="A commit has happened since")
            elif entry["key"] == "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.store.large:
                    raise Refusal(400, message=f"{value['path']}: its content was not uploaded")
                tree[value["path"]] = Blob(self.hub.store.large[value["oid"]], True)
            elif entry["key"] == "deletedFile":
                tree.pop(value["path"], None)
        new = found.commit(tree, revision, summary)
        url = f"{self.hub.url}/{repo}/commit/{new}"
        return self._json({"success": True, "commitOid": new, "commitUrl": url, "hookOutput": ""})

    def discussions(self, kind: str, repo: str) -> tuple:
        found = self._repository(kind, repo)
        if self.command == "POST":
            if self.person is None:
                raise Refusal(401, message="Invalid username or password.")
            asked = json.loads(self.body)
            one = Request(len(found.requests) + 1, asked["title"], self.person["name"])
            found.requests.append(one)
            found.refs[f"refs/pr/{one.num}"] = found.refs["main"]
            return self._json({"num": one.num, "url": f"{self.hub.url}/{repo}/discussions/{one.num}"})
        shown = [self._request(found, one) for one in found.requests if self.query.get("author") in (None, one.author)]
        return self._json({"discussions": shown, "count": len(shown), "start": 0})

    def discussion(self, kind: str, repo: str, num: str) -> tuple:
        found = self._repository(kind, repo)
        return self._json(self._request(found, found.requests[int(num) - 1]))

    def status(self, kind: str, repo: str, num: str) -> tuple:
        found = self._repository(kind, repo)
        one = found.requests[int(num) - 1]
        one.status = json.loads(self.body)["status"]
        new = {"id": "1", "type": "status-change", "createdAt": _NOW, "author": {"name": one.author}, "data": {}}
        return self._json({"newStatus": {**new, "data": {"status": one.status}}})

    def _request(self, found: Repository, one: Request) -> dict:
        return {
            "num": one.num, "title": one.title, "status": one.status, "createdAt": _NOW, "isPullRequest": True,
            "author": {"name": one.author}, "repo": {"name": found.name, "type": found.kind[:-1]}, "events": [],
            "filesWithConflicts": [], "changes": {"base": "refs/heads/main"}, "diffUrl": None,
        }  # fmt: skip


_NOW = "2026-01-01T00:00:00.000Z"
_R = r"(?P<repo>[^/]+/[^/]+)"
_API = rf"/api/(?P<kind>models|datasets)/{_R}"
_ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("GET", rf"{_API}(?:/revision/(?P<revision>[^/]+))?", "info"),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", "tree"),
    ("POST", rf"{_API}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("POST", rf"{_API}/branch/(?P<branch>[^/]+)", "branch"),
    ("POST", rf"{_API}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", "commit"),
    ("GET|POST", rf"{_API}/discussions", "discussions"),
    ("GET", rf"{_API}/discussions/(?P<num>\d+)", "discussion"),
    ("POST", rf"{_API}/discussions/(?P<num>\d+)/status", "status"),
    ("POST", rf"/{_R}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/large/(?P<oid>[0-9a-f]{64})", "large"),
    ("GET|HEAD", rf"/(?:(?P<kind>datasets)/)?{_R}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]
