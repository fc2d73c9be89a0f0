"""The part of the Hugging Face Hub that pushing a dataset needs: making repositories, sending and committing files."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from tests.unit.workers.hub_server import HubServer

TOKEN = "hf_test"

Answer = tuple[int, dict[str, str], bytes]


class DatasetHub(HubServer):
    """Keeps datasets as folders OWNER/NAME below `root`.

    Attributes:
        commits: names of the files of each commit, in order.
        private: of each repository that was made.
        sent: large files that were sent, by their SHA-256.
    """

    def __init__(self, root: Path) -> None:
        self.commits: list[list[str]] = []
        self.private: dict[str, bool] = {}
        self.sent: dict[str, bytes] = {}
        #: So many large files are still taken; then the connection ends.
        self.patience = 10**6
        super().__init__(root)

    def answer(self, path: str) -> Answer:
        """What is there."""
        kind, _, rest = path.strip("/").partition("/")
        if kind == "api" and rest.startswith("datasets/"):
            _, owner, name, *more = rest.split("/")
            folder = self.root / owner / name
            if not folder.is_dir():
                return 404, {"X-Error-Code": "RepoNotFound"}, b""
            if more[:1] == ["tree"]:
                return _json([self._entry(folder, file) for file in _files(folder)])
            return _json({"id": f"{owner}/{name}", "sha": "0" * 40, "siblings": []})
        return 404, {}, b""

    def take(self, path: str, body: bytes, authorization: str | None) -> Answer:
        """What is sent."""
        if path.startswith("/sent/"):
            self.patience -= 1
            if self.patience < 0:
                return 400, {}, b""
            self.sent[path.rpartition("/")[2]] = body
            return 200, {}, b""
        if authorization != f"Bearer {TOKEN}":
            return 401, {}, b""
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return _json({"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith((".parquet", ".webp")) else "regular",
                 "shouldIgnore": False} for one in asked
            ]  # fmt: skip
            return _json({"files": modes})
        if path.endswith("/info/lfs/objects/batch"):
            return _json({"transfer": "basic", "objects": [self._object(one) for one in json.loads(body)["objects"]]})
        return self._commit(path, body)

    def _create(self, asked: dict[str, Any]) -> Answer:
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        folder = self.root / name
        if folder.is_dir():
            return 409, {}, json.dumps({"url": f"{self.url}/datasets/{name}"}).encode()
        self.private[name] = asked["private"]
        folder.mkdir(parents=True)
        (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")
        return _json({"url": f"{self.url}/datasets/{name}"})

    def _object(self, one: dict[str, Any]) -> dict[str, Any]:
        upload = {"actions": {"upload": {"href": f"{self.url}/sent/{one['oid']}"}}}
        return {"oid": one["oid"], "size": one["size"], **({} if one["oid"] in self.sent else upload)}

    def _commit(self, path: str, body: bytes) -> Answer:
        owner, name = path.split("/")[3:5]
        folder = self.root / owner / name
        names = []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] in ("file", "lfsFile"):
                target = folder / value["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                content = base64.b64decode(value["content"]) if line["key"] == "file" else self.sent[value["oid"]]
                target.write_bytes(content)
                names.append(value["path"])
            elif line["key"] == "deletedFile":
                (folder / value["path"]).unlink()
        self.commits.append(sorted(names))
        return _json({"commitUrl": f"{self.url}/datasets/{owner}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40})

    @staticmethod
    def _entry(folder: Path, file: Path) -> dict[str, Any]:
        content = file.read_bytes()
        oid = hashlib.sha1(content).hexdigest()
        return {"type": "file", "path": file.relative_to(folder).as_posix(), "size": len(content), "oid": oid}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _json(content: object) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()
