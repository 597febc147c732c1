"""The log servers: each accepts or refuses every line of a batch, or the batch is sent again."""

from __future__ import annotations

import base64
import fcntl
import gzip
import http.client
import json
import os
import select
import socket
import ssl
import struct
import termios
import time
from collections import OrderedDict
from typing import Any, Protocol
from urllib.parse import urlsplit

from berth.logs.batches import NEVER, REMEMBERED, Batches, NeverError, NotNowError, Refusal
from berth.logs.events import Line

SECONDS = 20
# With TLS 1.3 a client may send before the server has verified its certificate. Wait this long for a refusal.
REFUSAL_SECONDS = 1.0
# Reserved by RFC 5612 for examples.
ENTERPRISE = 32473

Settings = dict[str, Any]


class Server(Protocol):
    """A log server that lines are shipped to."""

    def deliver(self, lines: list[Line]) -> list[Refusal]:
        """Return the lines that the server refused for good; it accepted all others. Raises NotNowError."""
        ...

    def close(self) -> None: ...


def secure_context(settings: Settings) -> ssl.SSLContext:
    """Return a context that verifies the server's name and presents our client certificate, if there is one."""
    context = ssl.create_default_context(cadata=settings.get("ca") or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.get("certificate"):
        # The ssl module reads only files: this one is in memory and ends with the process.
        file = os.memfd_create("client")
        os.write(file, f"{settings['certificate']}\n{settings['key']}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{file}")
        os.close(file)
    return context


class Https:
    """A server with an HTTPS API."""

    def __init__(self, settings: Settings) -> None:
        where = urlsplit(settings["url"])
        self._host, self._port, self._path = where.hostname or "", where.port or 443, where.path.rstrip("/")
        self._context = secure_context(settings)
        self._connection: http.client.HTTPSConnection | None = None
        self.headers = {}
        if settings.get("username"):
            login = f"{settings['username']}:{settings['password']}".encode()
            self.headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"

    def post(self, path: str, body: bytes) -> bytes:
        """Return the body of the response.

        Raises NeverError if the server will never accept this request, else NotNowError (also for a wrong password).
        """
        try:
            response = self._response(path, gzip.compress(body, 1))
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NotNowError(f"{type(error).__name__}: {error}") from error
        if response.status < 300:
            return content
        # If the server did not read the whole request, it would parse the rest as the next one.
        self.close()
        why = " ".join(content[:200].decode(errors="replace").split())
        # nginx answers 400 to a missing or expired client certificate: no line is at fault.
        if response.status in NEVER and b"SSL certificate" not in content:
            raise NeverError(response.status, why)
        raise NotNowError(f"HTTP {response.status} {why}")

    def _response(self, path: str, body: bytes) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=SECONDS, context=self._context
            )
        try:
            self._connection.request("POST", self._path + path, body, {**self.headers, "Content-Encoding": "gzip"})
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            # A server that refuses a request for its size may respond and close before it has read all of it.
            if self._connection.sock is None:
                raise
        return self._connection.getresponse()

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


class Loki(Https):
    """Loki's push API. Loki drops repeated lines with the same labels, time and text."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.headers["Content-Type"] = "application/json"
        if settings.get("token"):
            self.headers["Authorization"] = f"Bearer {settings['token']}"
        if settings.get("tenant"):
            self.headers["X-Scope-OrgID"] = settings["tenant"]
        self.deliver = Batches(self._push).deliver

    def _push(self, lines: list[Line]) -> list[Refusal]:
        streams: dict[tuple[tuple[str, str], ...], list[list[str]]] = {}
        for line in lines:
            key = tuple(line.labels.items())
            streams.setdefault(key, []).append([f"{line.microseconds}000", line.text])
        body = {"streams": [{"stream": dict(key), "values": values} for key, values in streams.items()]}
        self.post("/loki/api/v1/push", json.dumps(body).encode())
        return []


class Elasticsearch(Https):
    """The bulk API of Elasticsearch and OpenSearch. Each document has a status: a busy server rejects single ones.

    Each line has an id, so a repeated one is a conflict (409), not a second document.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._index = settings["index"]
        self.headers["Content-Type"] = "application/x-ndjson"
        if settings.get("token"):
            self.headers["Authorization"] = f"ApiKey {settings['token']}"
        self.deliver = Batches(self._bulk).deliver

    def _bulk(self, lines: list[Line]) -> list[Refusal]:
        rows = []
        for line in lines:
            rows.append(json.dumps({"create": {"_index": self._index, "_id": line.id}}))
            rows.append(json.dumps(self._document(line)))
        content = self.post("/_bulk", "\n".join(rows).encode() + b"\n")
        try:
            results = [item["create"] for item in json.loads(content)["items"]]
            failed = [
                (line, result["status"], json.dumps(result.get("error")))
                for line, result in zip(lines, results, strict=True)
                if result["status"] >= 300 and result["status"] != 409
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise NotNowError(f"this is not a response of the bulk API: {content[:200]!r}") from error
        # Missing rights or an index that is read-only for now are no fault of the document.
        later = [why for _, status, why in failed if status in (401, 403, 429) or status >= 500]
        if later:
            raise NotNowError(f"{len(later)} of {len(lines)} documents have to be sent again: {later[0]}")
        return [Refusal(line, f"{status} {why}") for line, status, why in failed]

    @staticmethod
    def _document(line: Line) -> dict[str, Any]:
        document: dict[str, Any] = {"@timestamp": line.iso_time, **line.labels, "message": line.text}
        if line.document is not None:
            fields = dict(line.document)
            if isinstance(fields.get("message"), str):
                document["message"] = fields.pop("message")
            # Under one key, so that fields of different programs do not clash with the top-level fields.
            document["fields"] = fields
        return document


def syslog_message(line: Line) -> bytes:
    """Return a line in the format of RFC 5424, with labels as structured data."""
    data = " ".join(
        f'{name}="{value}"'
        for name in ("colour", "release", "level")
        if (value := line.labels.get(name, "").translate({ord(mark): "\\" + mark for mark in '\\"]'}))
    )
    program = "".join(line.labels["service"].split()).encode("ascii", "replace").decode()[:48] or "-"
    head = f"<{line.priority}>1 {line.iso_time} {line.labels['host']} {program} {line.process} -"
    return f"{head} [berth@{ENTERPRISE} {data}] {line.text}".encode(errors="replace")


class Tls:
    """A TLS connection to a server."""

    def __init__(self, settings: Settings) -> None:
        self._where = (settings["host"], int(settings["port"]))
        self._context = secure_context(settings)
        self.socket: ssl.SSLSocket | None = None

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(self._where, timeout=SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SECONDS * 1000)
        self.socket = self._context.wrap_socket(plain, server_hostname=self._where[0])
        self._wait_for_refusal(self.socket)
        return self.socket

    def _wait_for_refusal(self, secure: ssl.SSLSocket) -> None:
        """Wait for the server to refuse our certificate: lines sent before that, and its reason, would be lost."""
        deadline = time.monotonic() + REFUSAL_SECONDS
        while (left := deadline - time.monotonic()) > 0 and select.select([secure], [], [], left)[0]:
            self._check_open(secure)

    @staticmethod
    def _check_open(secure: ssl.SSLSocket) -> None:
        """Raise ConnectionResetError if the server has closed the connection: a write would still succeed."""
        secure.settimeout(0)
        try:
            # The server sends no data here, so a read returns only at the end of the connection.
            if not secure.recv(1):
                raise ConnectionResetError("the server closed the connection")
        except ssl.SSLWantReadError:
            pass
        finally:
            secure.settimeout(SECONDS)

    def close(self) -> None:
        if self.socket:
            self.socket.close()
        self.socket = None


class Relp(Tls):
    """The Reliable Event Logging Protocol, version 0, over TLS: rsyslog acknowledges each message."""

    OFFER = b"relp_version=0\nrelp_software=berth_logs\ncommands=syslog"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._buffer = b""
        self._number = 0
        self._accepted: OrderedDict[str, None] = OrderedDict()

    def deliver(self, lines: list[Line]) -> list[Refusal]:
        try:
            secure = self.socket or self._open()
            self._send(secure, [line for line in lines if line.id not in self._accepted])
        except (OSError, ValueError) as error:
            self.close()
            raise NotNowError(f"{type(error).__name__}: {error}") from error
        self._accepted.clear()
        return []

    def _open(self) -> ssl.SSLSocket:
        self._buffer, self._number = b"", 0
        secure = self.connect()
        secure.sendall(self._frame(b"open", self.OFFER))
        self._acknowledged(secure, {self._number: ""})
        return secure

    def _send(self, secure: ssl.SSLSocket, lines: list[Line]) -> None:
        waiting, frames = {}, []
        for line in lines:
            frames.append(self._frame(b"syslog", syslog_message(line)))
            waiting[self._number] = line.id
        secure.sendall(b"".join(frames))
        self._acknowledged(secure, waiting)

    def _frame(self, command: bytes, data: bytes) -> bytes:
        self._number = self._number % 999_999_999 + 1
        return b"%d %s %d %s\n" % (self._number, command, len(data), data)

    def _acknowledged(self, secure: ssl.SSLSocket, waiting: dict[int, str]) -> None:
        """Read responses until each of these frames is acknowledged."""
        while waiting:
            number, command, data = self._read(secure)
            if command == b"serverclose":
                raise ConnectionResetError("the server closed the session")
            if not data.startswith(b"200"):
                raise ConnectionResetError(f"the server answered {data[:200].decode(errors='replace')}")
            if identity := waiting.pop(number, ""):
                self._accepted[identity] = None
                if len(self._accepted) > REMEMBERED:
                    self._accepted.popitem(last=False)

    def _read(self, secure: ssl.SSLSocket) -> tuple[int, bytes, bytes]:
        number = int(self._until(secure, b" ")[0])
        command = self._until(secure, b" ")[0]
        length, end = self._until(secure, b" \n")
        # A frame of length 0 has no space and no data.
        data = self._take(secure, int(length)) if end == b" " else b""
        if end == b" " and self._take(secure, 1) != b"\n":
            raise ValueError("a frame is longer than its length field")
        return number, command, data

    def _until(self, secure: ssl.SSLSocket, ends: bytes) -> tuple[bytes, bytes]:
        text = b""
        while (byte := self._take(secure, 1)) not in ends:
            text += byte
        return text, byte

    def _take(self, secure: ssl.SSLSocket, count: int) -> bytes:
        while len(self._buffer) < count:
            more = secure.recv(65536)
            if not more:
                raise ConnectionResetError("the server closed the connection")
            self._buffer += more
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken


class SyslogTls(Tls):
    """Syslog over TLS (RFC 5425). It has no acknowledgements: lines in the buffers of a server that dies are lost."""

    def deliver(self, lines: list[Line]) -> list[Refusal]:
        frames = []
        for line in lines:
            message = syslog_message(line)
            frames.append(b"%d %s" % (len(message), message))
        try:
            secure = self.socket or self.connect()
            self._check_open(secure)
            secure.sendall(b"".join(frames))
            self._arrived(secure)
        except OSError as error:
            self.close()
            raise NotNowError(f"{type(error).__name__}: {error}") from error
        return []

    @staticmethod
    def _arrived(secure: ssl.SSLSocket) -> None:
        """Wait until at least the server's kernel has acknowledged everything."""
        deadline = time.monotonic() + SECONDS
        while struct.unpack("i", fcntl.ioctl(secure.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]:
            if time.monotonic() > deadline:
                raise TimeoutError("the server does not acknowledge the data")
            time.sleep(0.005)


SERVERS: dict[str, type[Loki | Elasticsearch | Relp | SyslogTls]] = {
    "loki": Loki,
    "elasticsearch": Elasticsearch,
    "relp": Relp,
    "syslog_tls": SyslogTls,
}
