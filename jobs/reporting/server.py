"""The report as a local server: all rows of an output page by page, pictures straight from their shards.

    /                    the page
    /rows?…              some rows as JSON: words, task, status, first, count
    /small/KEY/N         the N-th picture of a row, small: its inputs, then its image
    /full/KEY/N          the same in full; of the image, the file as it is in the shard
    …/KEY/against        the image of the same id in the output that stands beside this one

It listens on this machine's own address only, and answers nobody who calls it by another name, so that a page from
elsewhere in the same browser cannot ask it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from jobs.output.catalog import Catalog, Row, query_of
from jobs.output.manifest_rows import ManifestRows
from jobs.reporting.comparison import Against, missing, row_apart
from jobs.reporting.inputs import read_input, sources
from jobs.reporting.page import SHOWN, redo_command, render_served, shown_columns
from jobs.reporting.pictures import thumbnail
from manifests.errors import SUCCESS, KandinskyBatchError, UsageError
from workers.stages.fetching import UnusableError

ADDRESS = "127.0.0.1"
PORT = 8421

#: Rows that one answer has at most.
MOST_ROWS = 500

#: Longer edge of an input image in full.
_FULL_EDGE = 2048

_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}


class RefusedError(Exception):
    """What is answered instead."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


def serve(output: str, port: int, against: str | None, ready: Callable[[str], None]) -> None:
    """Serve an output until the process is interrupted.

    Args:
        port: 0 takes any that is free.
        against: another output, whose images are shown beside those of the same id.
        ready: hears the page's address.

    Raises:
        UsageError: no run was begun there, or the port is taken.
        StorageError: the output cannot be read.
    """
    with make_server(output, port, against) as server:
        ready(f"http://{ADDRESS}:{server.server_port}/")
        server.serve_forever()


def make_server(output: str, port: int, against: str | None = None) -> ThreadingHTTPServer:
    """The server, not yet running; arguments and errors as of `serve`."""
    catalog = Catalog(output)
    other = None if against is None else Against.of(catalog.summary, against)

    class Handler(_Handler):
        pages = catalog
        manifest = ManifestRows(catalog.summary.settings.get("manifest", ()))
        beside = other

    try:
        return _Server((ADDRESS, port), Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"option --port: {port} cannot be taken ({error}); give another, or 0 for any") from error


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A browser that goes to another page hangs up on the pictures of this one.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    pages: Catalog
    manifest: ManifestRows
    beside: Against | None
    protocol_version = "HTTP/1.1"
    server_version = "kandinsky-batch"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a request."""
        try:
            self._refuse_strangers()
            kind, body, lasts = self._answer(urlsplit(self.path))
        except RefusedError as refusal:
            self._send(refusal.status, "text/plain; charset=utf-8", str(refusal).encode(), 0)
        except (KandinskyBatchError, OSError, UnusableError) as error:
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", str(error).encode(), 0)
        else:
            self._send(HTTPStatus.OK, kind, body, lasts)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: a page asks for hundreds of pictures."""

    def _refuse_strangers(self) -> None:
        name = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if name not in (ADDRESS, "localhost"):
            raise RefusedError(HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost only")

    def _answer(self, url: Any) -> tuple[str, bytes, int]:
        """Content type, body, and for how many seconds a browser may keep it."""
        match url.path.split("/")[1:]:
            case [""]:
                self.pages.refresh()
                return "text/html; charset=utf-8", render_served(self.pages, time.time(), self.beside).encode(), 0
            case ["rows"]:
                return "application/json", json.dumps(self._rows(parse_qs(url.query))).encode(), 0
            case [("small" | "full") as size, key, "against"] if self.beside is not None:
                return self._theirs(self.beside, unquote(key), size == "full")
            case [("small" | "full") as size, key, number] if number.isascii() and number.isdigit():
                return self._picture(unquote(key), int(number), size == "full")
        raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such page")

    def _rows(self, asked: Mapping[str, list[str]]) -> dict[str, Any]:
        words, task, status = (asked.get(name, [""])[-1] for name in ("words", "task", "status"))
        try:
            first, count = (int(asked.get(name, [default])[-1]) for name, default in (("first", "0"), ("count", "60")))
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "first and count are whole numbers") from error
        total, rows = self.pages.page(query_of(words, task, status), max(0, first), min(max(1, count), MOST_ROWS))
        shown = [_shown(self.pages.output, row) for row in rows]
        if self.beside is not None:
            for one, row, theirs in zip(shown, rows, self.beside.catalog.like(rows), strict=True):
                _add_theirs(one, row, theirs, self.beside)
        return {"total": total, "rows": shown}

    def _row(self, key: str) -> Row:
        row = self.pages.row(key)
        if row is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"no sealed shard has the key {key}")
        return row

    def _theirs(self, beside: Against, key: str, full: bool) -> tuple[str, bytes, int]:
        (theirs,) = beside.catalog.like([self._row(key)])
        if theirs is None or missing(theirs):
            raise RefusedError(HTTPStatus.NOT_FOUND, missing(theirs))
        return _image(beside.catalog, theirs, full)

    def _picture(self, key: str, number: int, full: bool) -> tuple[str, bytes, int]:
        row = self._row(key)
        inputs = sources(row)
        if number == len(inputs):
            return _image(self.pages, row, full)
        if number > len(inputs) or inputs[number].text is not None:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{key} has no such picture")
        found = read_input(row, number, self.manifest)
        if isinstance(found, UnusableError):
            raise RefusedError(HTTPStatus.NOT_FOUND, str(found))
        return "image/webp", thumbnail(found, _FULL_EDGE) if full else thumbnail(found), 3600

    def _send(self, status: HTTPStatus, kind: str, body: bytes, lasts: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", f"private, max-age={lasts}" if lasts else "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header(
            "Content-Security-Policy",
            "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' data:",
        )
        self.end_headers()
        self.wfile.write(body)


def _image(catalog: Catalog, row: Row, full: bool) -> tuple[str, bytes, int]:
    content = catalog.image(row)
    return (_TYPES[catalog.image_format], content, 3600) if full else ("image/webp", thumbnail(content), 3600)


def _add_theirs(shown: dict[str, Any], row: Row, theirs: Row | None, beside: Against) -> None:
    """Put the other output's image beside the row's own."""
    why = missing(theirs)
    shown["pictures"][-1]["label"] = beside.names[0]
    place = None if why else f"{quote(row['key'])}/against"
    shown["pictures"].append({"label": beside.names[1], "note": why, "place": place})
    if theirs is not None and (apart := row_apart(row, theirs)):
        shown["details"].append((dict(SHOWN)["apart"], apart))


def _shown(output: str, row: Row) -> dict[str, Any]:
    """A row as the page needs it."""
    key = row["key"]
    inputs = sources(row)
    pictures = [
        {"label": one.label, "note": one.text or "", "place": f"{quote(key)}/{number}" if one.text is None else None}
        for number, one in enumerate(inputs)
    ]
    if row["status"] == SUCCESS:
        pictures.append({"label": "result", "note": "", "place": f"{quote(key)}/{len(inputs)}"})
    else:
        pictures.append({"label": row["status"], "note": row["error_message"] or "", "place": None})
    return {
        "key": key,
        "caption": row["caption"] or "",
        "pictures": pictures,
        "details": shown_columns(row),
        "command": redo_command(output, key),
    }
