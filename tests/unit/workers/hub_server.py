"""The part of the Hugging Face Hub that fetching a repository needs, on a port of this machine.

Pushing to it is in tests/unit/jobs/exporting/dataset_hub.py.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

OWNER = "kandinsky-community"


class HubServer:
    """Serves folders as the repositories of one owner, every ref at the same commit.

    Args:
        root: holds the repositories; what is changed there is a new commit.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        #: Every path that was asked for with GET, in order.
        self.got: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                hub.got.append(urlsplit(self.path).path)
                self._answer(with_body=True)

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_POST(self) -> None:
                self._take()

            def do_PUT(self) -> None:
                self._take()

            def _take(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._say(*hub.take(urlsplit(self.path).path, body, self.headers.get("Authorization")), with_body=True)

            def _answer(self, with_body: bool) -> None:
                self._say(*hub.answer(urlsplit(self.path).path), with_body=with_body)

            def _say(self, status: int, headers: dict[str, str], body: bytes, with_body: bool) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def fetched(self) -> list[str]:
        """Files that were fetched, as REPOSITORY/path."""
        return [f"{path.split('/')[2]}/{'/'.join(path.split('/')[5:])}" for path in self.got if "/resolve/" in path]

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if api else parts
        folder = self.root / name
        if owner != OWNER or not folder.is_dir():
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", "v1", self.commit(name)):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if api:
            return 200, {"Content-Type": "application/json"}, json.dumps(self._info(name)).encode()
        file = folder / "/".join(rest[2:])
        if not file.is_file():
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        content = file.read_bytes()
        return 200, {"ETag": f'"{_sha256(content)}"', "X-Repo-Commit": self.commit(name)}, content

    def take(self, path: str, body: bytes, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for what is sent to a path; these repositories are for reading."""
        return 403, {}, b""

    def commit(self, name: str) -> str:
        """Of a repository's present content."""
        return hashlib.sha1(json.dumps(self._files(name)).encode()).hexdigest()

    def _info(self, name: str) -> dict[str, object]:
        return {"id": f"{OWNER}/{name}", "sha": self.commit(name), "siblings": self._files(name)}

    def _files(self, name: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for path in sorted(path for path in (self.root / name).rglob("*") if path.is_file()):
            content = path.read_bytes()
            entry = {"rfilename": path.relative_to(self.root / name).as_posix(), "size": len(content)}
            large = {"sha256": _sha256(content), "size": len(content), "pointerSize": 134}
            found.append({**entry, "blobId": _sha256(content)[:40], "lfs": large})
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
