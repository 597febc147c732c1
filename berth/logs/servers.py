"""The log servers: each says of every line of a batch that it has or refuses it, or the batch comes again."""

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
# With TLS 1.3 a server sees our certificate when we may send already. So long we wait whether it refuses us.
REFUSAL_SECONDS = 1.0
# The number that RFC 5612 sets aside for examples.
ENTERPRISE = 32473

Settings = dict[str, Any]


class Server(Protocol):
    """What ships lines."""

    def deliver(self, lines: list[Line]) -> list[Refusal]:
        """Return the lines that are refused for good; the server has all others. Raises NotNowError."""
        ...

    def close(self) -> None: ...


def secure_context(settings: Settings) -> ssl.SSLContext:
    """The server proves its name; where we have a certificate, we prove ours."""
    context = ssl.create_default_context(cadata=settings.get("ca") or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.get("certificate"):
        # The library reads files alone: this one is in memory, and gone with the process.
        file = os.memfd_create("client")
        os.write(file, f"{settings['certificate']}\n{settings['key']}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{file}")
        os.close(file)
    return context


class Https:
    """A server that is posted to."""

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
        """Return the body of the answer.

        Raises NeverError where the server will not take this request, NotNowError for what may pass (a wrong password).
        """
        try:
            response = self._asked(path, gzip.compress(body, 1))
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NotNowError(f"{type(error).__name__}: {error}") from error
        if response.status < 300:
            return content
        # Of a request that it has not read to its end, the rest would be taken for the next one.
        self.close()
        why = " ".join(content[:200].decode(errors="replace").split())
        # nginx answers 400 to a client certificate that is missing or has expired: that is no fault of a line.
        if response.status in NEVER and b"SSL certificate" not in content:
            raise NeverError(response.status, why)
        raise NotNowError(f"it answers {response.status} {why}")

    def _asked(self, path: str, body: bytes) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=SECONDS, context=self._context
            )
        try:
            self._connection.request("POST", self._path + path, body, {**self.headers, "Content-Encoding": "gzip"})
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            # One that refuses a request for its size may answer and close before the end of it.
            if self._connection.sock is None:
                raise
        return self._connection.getresponse()

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


class Loki(Https):
    """Loki's push API. Loki itself leaves out a line that it has, with the same labels and time."""

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
    """The bulk API, OpenSearch's too. The status of each document counts: a busy server refuses single ones.

    An id for each line makes a repeated one a conflict (409), not a second document.
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
            raise NotNowError(f"it answers what is not the bulk API: {content[:200]!r}") from error
        # Rights that are missing, or an index that is read-only for now, are no fault of a document.
        later = [why for _, status, why in failed if status in (401, 403, 429) or status >= 500]
        if later:
            raise NotNowError(f"it takes {len(later)} of {len(lines)} documents later: {later[0]}")
        return [Refusal(line, f"{status} {why}") for line, status, why in failed]

    @staticmethod
    def _document(line: Line) -> dict[str, Any]:
        document: dict[str, Any] = {"@timestamp": line.iso_time, **line.labels, "message": line.text}
        if line.document is not None:
            fields = dict(line.document)
            if isinstance(fields.get("message"), str):
                document["message"] = fields.pop("message")
            # Below one name, so that no program's field meets another's of the same name at the top.
            document["fields"] = fields
        return document


def syslog_message(line: Line) -> bytes:
    """A line as RFC 5424 writes it, labels as structured data."""
    data = " ".join(
        f'{name}="{value}"'
        for name in ("colour", "release", "level")
        if (value := line.labels.get(name, "").translate({ord(mark): "\\" + mark for mark in '\\"]'}))
    )
    program = "".join(line.labels["service"].split()).encode("ascii", "replace").decode()[:48] or "-"
    head = f"<{line.priority}>1 {line.iso_time} {line.labels['host']} {program} {line.process} -"
    return f"{head} [berth@{ENTERPRISE} {data}] {line.text}".encode(errors="replace")


class Tls:
    """A connection to a server by name and port."""

    def __init__(self, settings: Settings) -> None:
        self._where = (settings["host"], int(settings["port"]))
        self._context = secure_context(settings)
        self.socket: ssl.SSLSocket | None = None

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(self._where, timeout=SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SECONDS * 1000)
        self.socket = self._context.wrap_socket(plain, server_hostname=self._where[0])
        self._admitted(self.socket)
        return self.socket

    def _admitted(self, secure: ssl.SSLSocket) -> None:
        """Wait whether the server refuses us: what we sent it until then would be lost, and its reason with it."""
        deadline = time.monotonic() + REFUSAL_SECONDS
        while (left := deadline - time.monotonic()) > 0 and select.select([secure], [], [], left)[0]:
            self._there(secure)

    @staticmethod
    def _there(secure: ssl.SSLSocket) -> None:
        """See that the server has not hung up, before anything is sent into the void."""
        secure.settimeout(0)
        try:
            # It has nothing to say but its end; TLS's own messages are no data.
            if not secure.recv(1):
                raise ConnectionResetError("the server hung up")
        except ssl.SSLWantReadError:
            pass
        finally:
            secure.settimeout(SECONDS)

    def close(self) -> None:
        if self.socket:
            self.socket.close()
        self.socket = None


class Relp(Tls):
    """The Reliable Event Logging Protocol, version 0, over TLS: rsyslog answers each message."""

    OFFER = b"relp_version=0\nrelp_software=berth_logs\ncommands=syslog"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._buffer = b""
        self._number = 0
        self._taken: OrderedDict[str, None] = OrderedDict()

    def deliver(self, lines: list[Line]) -> list[Refusal]:
        try:
            secure = self.socket or self._open()
            self._send(secure, [line for line in lines if line.id not in self._taken])
        except (OSError, ValueError) as error:
            self.close()
            raise NotNowError(f"{type(error).__name__}: {error}") from error
        self._taken.clear()
        return []

    def _open(self) -> ssl.SSLSocket:
        self._buffer, self._number = b"", 0
        secure = self.connect()
        secure.sendall(self._frame(b"open", self.OFFER))
        self._answered(secure, {self._number: ""})
        return secure

    def _send(self, secure: ssl.SSLSocket, lines: list[Line]) -> None:
        waiting, frames = {}, []
        for line in lines:
            frames.append(self._frame(b"syslog", syslog_message(line)))
            waiting[self._number] = line.id
        secure.sendall(b"".join(frames))
        self._answered(secure, waiting)

    def _frame(self, command: bytes, data: bytes) -> bytes:
        self._number = self._number % 999_999_999 + 1
        return b"%d %s %d %s\n" % (self._number, command, len(data), data)

    def _answered(self, secure: ssl.SSLSocket, waiting: dict[int, str]) -> None:
        """Read answers until each of these numbers has a good one."""
        while waiting:
            number, command, data = self._read(secure)
            if command == b"serverclose":
                raise ConnectionResetError("the server closes the session")
            if not data.startswith(b"200"):
                raise ConnectionResetError(f"it answers {data[:200].decode(errors='replace')}")
            if identity := waiting.pop(number, ""):
                self._taken[identity] = None
                if len(self._taken) > REMEMBERED:
                    self._taken.popitem(last=False)

    def _read(self, secure: ssl.SSLSocket) -> tuple[int, bytes, bytes]:
        number = int(self._until(secure, b" ")[0])
        command = self._until(secure, b" ")[0]
        length, end = self._until(secure, b" \n")
        # A length of 0 ends the frame by itself.
        data = self._take(secure, int(length)) if end == b" " else b""
        if end == b" " and self._take(secure, 1) != b"\n":
            raise ValueError("a frame does not end where it said")
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
                raise ConnectionResetError("the server hung up")
            self._buffer += more
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken


class SyslogTls(Tls):
    """Syslog over TLS (RFC 5425). The server never answers: what it had received but not read when it died is lost."""

    def deliver(self, lines: list[Line]) -> list[Refusal]:
        frames = []
        for line in lines:
            message = syslog_message(line)
            frames.append(b"%d %s" % (len(message), message))
        try:
            secure = self.socket or self.connect()
            self._there(secure)
            secure.sendall(b"".join(frames))
            self._arrived(secure)
        except OSError as error:
            self.close()
            raise NotNowError(f"{type(error).__name__}: {error}") from error
        return []

    @staticmethod
    def _arrived(secure: ssl.SSLSocket) -> None:
        """Wait until the server's machine, at least, has all of it."""
        deadline = time.monotonic() + SECONDS
        while struct.unpack("i", fcntl.ioctl(secure.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]:
            if time.monotonic() > deadline:
                raise TimeoutError("the server's machine takes nothing")
            time.sleep(0.005)


SERVERS: dict[str, type[Loki | Elasticsearch | Relp | SyslogTls]] = {
    "loki": Loki,
    "elasticsearch": Elasticsearch,
    "relp": Relp,
    "syslog_tls": SyslogTls,
}
