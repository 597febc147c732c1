"""What stands behind the edge while it is measured: quick answers, slow ones, and one that goes on for long.

usage: backend.py PORT

GET  /            at once, with the client's address as the edge saw it
POST /            the length of what came
GET  /slow/S      after S seconds
GET  /stream/S    a line every 100 ms for S seconds
"""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """One client of the edge."""

    protocol_version = "HTTP/1.1"

    def answer(self, body: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self) -> None:
        kind, _, seconds = self.path.strip("/").partition("/")
        if kind == "slow":
            time.sleep(float(seconds))
        if kind != "stream":
            self.answer(f"{self.headers['X-Forwarded-For']}\n")
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(int(float(seconds) * 10)):
            self.wfile.write(b"5\r\ntick\n\r\n")
            time.sleep(0.1)
        self.wfile.write(b"0\r\n\r\n")

    def do_POST(self) -> None:
        self.answer(f"{len(self.rfile.read(int(self.headers['Content-Length'])))}\n")

    def log_message(self, *_: object) -> None:
        """Say nothing: the edge writes the access log."""


class Server(ThreadingHTTPServer):
    """Room for many clients at once."""

    request_queue_size = 1024
    daemon_threads = True


Server(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()  # noqa: S104 - a test machine
