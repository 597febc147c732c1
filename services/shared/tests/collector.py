"""A collector of traces for tests: a real server, which checks what it is sent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from outside.otlp import MEDIA_TYPE, TAKEN, read_spans


class Collector(ThreadingHTTPServer):
    """Takes spans, or refuses them while it is away."""

    daemon_threads = True

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.away = False
        self.asked = 0
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"


class Answer(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        if not self.server.away:
            self.server.spans += read_spans(body)
        self.send_response(400 if self.server.away else 200)
        self.send_header("Content-Type", MEDIA_TYPE)
        self.end_headers()
        self.wfile.write(TAKEN)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
