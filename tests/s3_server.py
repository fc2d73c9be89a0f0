"""A real S3 server for tests: moto's, on a port of its own, with one empty bucket."""

from __future__ import annotations

import threading
import time
import urllib.request
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class S3Server:
    """S3 with the bucket `bucket`, empty whatever other tests of this process have put there; can be told to fail."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.requests = 0
        self.refused = 0
        #: Every so-many-th request fails; 0 for none.
        self.every = 0
        #: Seconds from the next request on in which every request fails.
        self.down_for = 0.0
        self._down_until = 0.0
        # What moto keeps is the process's, not the server's.
        urllib.request.urlopen(f"{self.url}/moto-api/reset", data=b"").close()
        names = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=self.url, **names).create_bucket(Bucket="bucket")

    @property
    def environment(self) -> dict[str, str]:
        """What a process that reaches it needs."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.url}

    def _answer(self, environ: Any, start_response: Any) -> Any:
        self.requests += 1
        if self.down_for:
            self._down_until, self.down_for = time.monotonic() + self.down_for, 0.0
        if time.monotonic() < self._down_until or (self.every and self.requests % self.every == 0):
            self.refused += 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Service Unavailable", [("Content-Type", "application/xml"), ("Content-Length", "0")])
            return [b""]
        if "HTTP_IF_NONE_MATCH" in environ:
            # S3 decides at one moment who is first. moto looks, and writes a little later.
            with self._one_at_a_time:
                return self._moto(environ, start_response)
        return self._moto(environ, start_response)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
