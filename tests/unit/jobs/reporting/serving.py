"""The report's server, running beside a test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from jobs.reporting.server import make_server


@contextlib.contextmanager
def serving(output: str, against: str | None = None) -> Iterator[int]:
    """Gives the port; it ends with the block."""
    with make_server(output, 0, against) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
