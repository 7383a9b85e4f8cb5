"""A server that speaks as much of the Hugging Face hub's language as fetching a model needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


class Hub:
    """Repositories by name, each with its files by revision; `asked` are the paths of all requests."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Files]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []

    def commit(self, files: Files) -> str:
        """The revision's commit: a digest of its content."""
        return hashlib.sha1(json.dumps({name: data.hex() for name, data in files.items()}).encode()).hexdigest()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        self.asked.append(path)
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        is_api = parts[:2] == ["api", "models"]
        parts = parts[2:] if is_api else parts
        name, rest = "/".join(parts[:2]), parts[2:]
        if name in self.gated and not is_api:  # anyone may read that there is such a thing
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if name not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        revisions = self.repositories[name]
        known = {**revisions, **{self.commit(files): files for files in revisions.values()}}
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in known:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = known[revision]
        if is_api:
            return 200, {"Content-Type": "application/json"}, json.dumps(self.described(name, files, rest)).encode()
        if rest[2] not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        data = files[rest[2]]
        return 200, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.commit(files)}, data

    def described(self, name: str, files: Files, rest: list[str]) -> Any:
        """What the API says of a repository, or of its tree."""
        if rest[:1] == ["tree"]:
            return [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in files.items()
            ]
        return {"id": name, "sha": self.commit(files), "siblings": [{"rfilename": file} for file in files]}


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """The address of a server of this process, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for header, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
