"""Requests whose end, name or place two programs could read differently, each by the name of its trick.

`MARK` stands for what tells one row from the next, in as many bytes. The request that is smuggled asks for a host that
the edge has no route for: if the edge reads it as a request of its own, the edge answers 404.
"""

from __future__ import annotations

from tests.attack.clients import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, literal
from tests.edge.bed import SITE

HOSTILE = "/api/users/hostile-MARK"
NOWHERE = "nowhere.invalid"
SMUGGLED = f"GET /smuggled-MARK HTTP/1.1\r\nHost: {NOWHERE}\r\n\r\n".encode()
# Its last header takes up what comes next: the request line of somebody else.
OPEN = f"GET /smuggled-MARK HTTP/1.1\r\nHost: {NOWHERE}\r\nX-Absorb: ".encode()
CHUNKED = "Transfer-Encoding: chunked"
# The request, in the pieces in which it is sent.
Pieces = tuple[bytes, ...]


def request(
    *lines: str,
    body: bytes = b"",
    method: str = "POST",
    target: str = HOSTILE,
    version: str = "HTTP/1.1",
    host: str = f"Host: {SITE}",
) -> bytes:
    head = [f"{method} {target} {version}", host, *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


def chunk(body: bytes, size: str = "", end: bytes = b"\r\n") -> bytes:
    return (size or f"{len(body):x}").encode() + end + body + b"\r\n0\r\n\r\n"


# --- Two lengths: which counts? ---

ENDED = b"0\r\n\r\n"
SPELLINGS = {
    "plain": CHUNKED,
    "blank before the colon": "Transfer-Encoding : chunked",
    "tab": "Transfer-Encoding:\tchunked",
    "vertical tab": "Transfer-Encoding: \x0bchunked",
    "no-break space": "Transfer-Encoding: chunked\xa0",
    "xchunked": "Transfer-Encoding: xchunked",
    "chunked, identity": "Transfer-Encoding: chunked, identity",
    "identity, chunked": "Transfer-Encoding: identity, chunked",
    "gzip, chunked": "Transfer-Encoding: gzip, chunked",
    "with a parameter": "Transfer-Encoding: chunked;q=1",
    "in quotes": 'Transfer-Encoding: "chunked"',
    "twice": f"{CHUNKED}\r\n{CHUNKED}",
    "twice, the first unknown": f"Transfer-Encoding: x\r\n{CHUNKED}",
    "twice, the second unknown": f"{CHUNKED}\r\nTransfer-Encoding: x",
    "uppercase": "TRANSFER-ENCODING: CHUNKED",
    "underscore": "Transfer_Encoding: chunked",
    "folded": "Transfer-Encoding:\r\n chunked",
    "as the fold of a header": f"X-A: b\r\n {CHUNKED}",
    "after a bare LF": f"X-A: b\n{CHUNKED}",
    "after a bare CR": f"X-A: b\r{CHUNKED}",
    "after a NUL": f"X-A: b\x00{CHUNKED}",
    "removed by Connection": f"{CHUNKED}\r\nConnection: Transfer-Encoding",
}


def two_lengths() -> dict[str, Pieces]:
    cl_te, te_cl = ENDED + OPEN, chunk(SMUGGLED)
    rows: dict[str, Pieces] = {
        "CL.TE, a whole request": (request(length(ENDED + SMUGGLED), CHUNKED, body=ENDED + SMUGGLED),),
        "CL.TE, the length last": (request(CHUNKED, length(cl_te), body=cl_te),),
        "CL.TE over HTTP/1.0": (
            request(length(cl_te), CHUNKED, "Connection: keep-alive", body=cl_te, version="HTTP/1.0"),
        ),
    }
    for name, line in SPELLINGS.items():
        rows[f"CL.TE, {name}"] = (request(length(cl_te), line, body=cl_te),)
        # A program that counts by Content-Length takes the size of the chunk for the whole body.
        rows[f"TE.CL, {name}"] = (request(f"Content-Length: {len(te_cl.split(b'G')[0])}", line, body=te_cl),)
    return rows


def lengths() -> dict[str, Pieces]:
    n, body = len(SMUGGLED), SMUGGLED
    values = {
        "two, the first 0": f"Content-Length: 0\r\nContent-Length: {n}",
        "two, the second 0": f"Content-Length: {n}\r\nContent-Length: 0",
        "two in one header": f"Content-Length: 0, {n}",
        "two in other letters": f"Content-Length: 0\r\ncontent-length: {n}",
        "with +": f"Content-Length: +{n}",
        "with -": "Content-Length: -1",
        "with 0x": f"Content-Length: 0x{n:x}",
        "with _": f"Content-Length: {n // 10}_{n % 10}",
        "with blanks": f"Content-Length: {n // 10} {n % 10}",
        "with a comma at the end": f"Content-Length: {n},",
        "empty": "Content-Length:",
        "blank before the colon": f"Content-Length : {n}",
        "underscore": f"Content_Length: {n}",
        "beyond 64 bits": f"Content-Length: {2**64 + n}",
        "folded": f"Content-Length:\r\n {n}",
        "as the fold of a header": f"X-A: b\r\n Content-Length: {n}",
        "after a bare LF": f"X-A: b\nContent-Length: {n}",
        "after a bare CR": f"X-A: b\rContent-Length: {n}",
        "removed by Connection": f"Content-Length: {n}\r\nConnection: close, Content-Length",
    }
    rows: dict[str, Pieces] = {f"length {name}": (request(line, body=body),) for name, line in values.items()}
    for method in ("GET", "HEAD", "OPTIONS"):
        rows[f"length of a {method}"] = (request(length(body), body=body, method=method),)
    rows["0.CL, a GET whose body does not come"] = (request(length(body), method="GET"),)
    rows["0.CL, a length that is too long"] = (request("Content-Length: 500", body=SMUGGLED),)
    rows["CL.0, answered before the body comes"] = (request(length(body), target=f"{HOSTILE}/early"), body)
    return rows


# --- Chunks ---


def chunks() -> dict[str, Pieces]:
    whole = ENDED + OPEN
    bodies = {
        "extension": chunk(SMUGGLED, f"{len(SMUGGLED):x};a=b"),
        "extension that ends with a bare LF": b"2;\nxx\r\n" + chunk(ENDED + SMUGGLED),
        "size that ends with a bare LF": chunk(SMUGGLED, end=b"\n"),
        "size that ends with a bare CR": chunk(SMUGGLED, end=b"\r"),
        "data that ends with a bare LF": b"2\r\nxx\n" + whole,
        "data without an end": b"2\r\nxx" + whole,
        "data longer than its size": b"2\r\nxxxx\r\n" + whole,
        "last one with a bare LF": b"0\n\n" + OPEN,
        "size beyond 64 bits": chunk(SMUGGLED, f"1{'0' * 15}{len(SMUGGLED):x}"),
        "size with 0x": chunk(SMUGGLED, f"0x{len(SMUGGLED):x}"),
        "size with +": chunk(SMUGGLED, f"+{len(SMUGGLED):x}"),
        "size with -": chunk(SMUGGLED, "-1"),
        "size with _": chunk(SMUGGLED, f"{len(SMUGGLED):x}"[0] + "_" + f"{len(SMUGGLED):x}"[1:]),
        "size after a blank": chunk(SMUGGLED, f" {len(SMUGGLED):x}"),
        "size before a blank": chunk(SMUGGLED, f"{len(SMUGGLED):x} "),
        "size that is empty": b"\r\n" + whole,
        "last one in many zeros": b"00000000000000000\r\n\r\n" + OPEN,
        "trailer with a length": b"0\r\nContent-Length: 500\r\n\r\n" + OPEN,
        "trailer with a host": f"0\r\nHost: {NOWHERE}\r\nX-Smuggled: 1\r\n\r\n".encode(),
        "trailer that is a request": b"0\r\n" + SMUGGLED,
        "never ended": b"2\r\nxx\r\n",
    }
    return {f"chunk {name}": (request(CHUNKED, body=body),) for name, body in bodies.items()}


# --- Heads ---


def heads() -> dict[str, Pieces]:
    def get(*lines: str, target: str = HOSTILE, version: str = "HTTP/1.1", host: str = f"Host: {SITE}") -> Pieces:
        return (request(*lines, method="GET", target=target, version=version, host=host),)

    hosts = {
        "two": f"Host: {SITE}\r\nHost: {NOWHERE}",
        "two, the other first": f"Host: {NOWHERE}\r\nHost: {SITE}",
        "folded": f"Host: {SITE}\r\n {NOWHERE}",
        "user": f"Host: {SITE}@{NOWHERE}",
        "path": f"Host: {NOWHERE}/{SITE}",
        "blank": f"Host: {SITE} {NOWHERE}",
        "blank before the colon": f"Host : {NOWHERE}",
        "none": "X-A: b",
    }
    rows = {f"host {name}": get(host=line) for name, line in hosts.items()}
    rows |= {
        "absolute target of another host": get(target=f"https://{NOWHERE}{HOSTILE}"),
        "absolute target, another Host": get(host=f"Host: {NOWHERE}", target=f"https://{SITE}{HOSTILE}"),
        "absolute target with a user": get(target=f"https://{SITE}@{NOWHERE}/smuggled-MARK"),
        "target of two slashes": get(target=f"//{NOWHERE}/hostile-MARK"),
        "target without a slash": get(target="smuggled-MARK"),
        "target with a blank": get(target=f"{HOSTILE} HTTP/1.1 /smuggled-MARK"),
        "target with CRLF encoded": get(target=f"{HOSTILE}%20HTTP/1.1%0d%0aX-Smuggled:%201%0d%0a%0d%0a"),
        "target with a bare CR": get(target=f"{HOSTILE}\rX-Smuggled: 1"),
        "target with a tab": get(target=f"{HOSTILE}\t/smuggled-MARK"),
        "target with a fragment": get(target=f"{HOSTILE}#/smuggled-MARK"),
        "target of CONNECT": (request(method="CONNECT", target=f"{SITE}:443", body=SMUGGLED),),
        "method with a blank": (request(method="GET /smuggled-MARK"),),
        "method with a bare CR": (request(method="GET\r"),),
        "version 0.9": (b"GET /smuggled-MARK\r\n\r\n",),
        "version 1.2": get(version="HTTP/1.2"),
        "version with a blank": get(version="HTTP/1.1 x"),
        "version 2 by prior knowledge": (PREFACE + SMUGGLED,),
        "header value with a bare CR": get("X-A: b\rX-Smuggled: 1"),
        # Ends a header at the edge, as a server may read it, so that there are two of them for the service, too.
        "header value with a bare LF": get("X-A: b\nX-B: 1"),
        "header value with a NUL": get("X-A: b\x00X-Smuggled: 1"),
        "header value folded": get("X-A: b\r\n X-Smuggled: 1"),
        "header name with a blank": get("X A: b"),
        "header name that is empty": get(": b"),
        "header without a colon": get("X-Smuggled"),
        "first header folded": (request(method="GET").replace(b"Host", b" X: b\r\nHost", 1),),
        "lines that end with LF": (request(method="GET").replace(b"\r\n", b"\n") + OPEN,),
        "lines that are empty come first": (b"\r\n\r\n" + request(method="GET"),),
    }
    return rows


# --- Waiting, leaving, changing the protocol ---


def orders() -> dict[str, Pieces]:
    early, expect = f"{HOSTILE}/early", "Expect: 100-continue"
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    socket = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 777", "Sec-WebSocket-Key: eA==")
    return {
        "expect, the body at once": (request(expect, length(SMUGGLED), body=SMUGGLED),),
        "expect, the body after the answer": (request(expect, length(SMUGGLED), target=early), SMUGGLED),
        "expect, no body": (request(expect, length(SMUGGLED), target=early),),
        "expect of a GET": (request(expect, length(SMUGGLED), method="GET", target=early), SMUGGLED),
        "expect of a HEAD": (request(expect, length(SMUGGLED), method="HEAD", target=early), SMUGGLED),
        "expect without a length": (request(expect, target=early), SMUGGLED),
        "expect chunks": (request(expect, CHUNKED, target=early), chunk(SMUGGLED)),
        "expect more than that": (request("Expect: y 100-continue", length(SMUGGLED), target=early), SMUGGLED),
        "expect twice": (request(f"{expect}\r\n{expect}", length(SMUGGLED), target=early), SMUGGLED),
        "queue of whole requests": (request(method="GET") * 5 + SMUGGLED,),
        "queue of HEAD and GET": ((request(method="HEAD") + request(method="GET")) * 3 + SMUGGLED,),
        "upgrade to HTTP/2": (request(*upgrade, method="GET"), SMUGGLED),
        "upgrade to a websocket": (request(*socket, method="GET"), SMUGGLED),
        "upgrade with a length": (request(*socket, length(SMUGGLED), method="GET", body=SMUGGLED),),
        "upgrade, then the body": (request(*socket, length(OPEN), method="GET"), OPEN),
        "upgrade with an expected body": (request(*socket, expect, length(OPEN), body=OPEN),),
        "upgrade with a large body": (request(*socket, length(8192 * SMUGGLED[:1] + OPEN), body=8192 * b"x" + OPEN),),
        "upgrade with chunks": (request(*socket, CHUNKED, body=chunk(SMUGGLED)),),
    }


# --- HTTP/2, which the edge turns into HTTP/1.1 ---


def two(
    *more: tuple[str, str], body: bytes = b"", trailers: tuple[tuple[str, str], ...] = (), **changed: str
) -> Pieces:
    pseudo = {"method": "POST", "scheme": "https", "authority": SITE, "path": HOSTILE, **changed}
    headers = [*((f":{name}", value) for name, value in pseudo.items()), *more]
    return (PREFACE + frame(SETTINGS, 0, 0) + stream(headers, body, trailers),)


def stream(
    headers: list[tuple[str, str]], body: bytes = b"", trailers: tuple[tuple[str, str], ...] = (), number: int = 1
) -> bytes:
    last = 0 if body or trailers else END_STREAM
    sent = frame(HEADERS, END_HEADERS | last, number, b"".join(literal(*one) for one in headers))
    if body:
        sent += frame(DATA, 0 if trailers else END_STREAM, number, body)
    if trailers:
        sent += frame(HEADERS, END_HEADERS | END_STREAM, number, b"".join(literal(*one) for one in trailers))
    return sent


def http2() -> dict[str, Pieces]:
    chunked = ("transfer-encoding", "chunked")
    line = f"{HOSTILE} HTTP/1.1\r\nHost: {SITE}\r\n\r\nGET /smuggled-MARK"
    return {
        "h2.CL, a length of 0": two(("content-length", "0"), body=SMUGGLED),
        "h2.CL, too short": two(("content-length", "5"), body=SMUGGLED),
        "h2.CL, too long": two(("content-length", "500"), body=SMUGGLED),
        "h2.CL, two": two(("content-length", "0"), ("content-length", f"{len(SMUGGLED)}"), body=SMUGGLED),
        "h2.CL, with +": two(("content-length", "+0"), body=SMUGGLED),
        "h2.CL, of a GET": two(("content-length", "0"), body=SMUGGLED, method="GET"),
        "h2.CL, no body": two(("content-length", "500")),
        "h2.TE": two(chunked, body=ENDED + OPEN),
        "h2.TE, with a length": two(("content-length", "0"), chunked, body=ENDED + OPEN),
        "h2.TE, xchunked": two(("transfer-encoding", "xchunked"), body=ENDED + OPEN),
        "h2.TE, blank in the name": two(("transfer-encoding ", "chunked"), body=ENDED + OPEN),
        "h2.TE, underscore": two(("transfer_encoding", "chunked"), body=ENDED + OPEN),
        "h2.TE, uppercase": two(("Transfer-Encoding", "chunked"), body=ENDED + OPEN),
        "h2.TE, in the trailers": two(body=b"x", trailers=(chunked, ("content-length", "500"))),
        "h2 value with CRLF": two(("x-a", "b\r\nX-Smuggled: 1")),
        "h2 value with CRLF and chunks": two(("x-a", "b\r\nTransfer-Encoding: chunked"), body=ENDED + OPEN),
        "h2 value with a request": two(("x-a", f"b\r\n\r\n{SMUGGLED.decode()}")),
        "h2 value with a bare LF": two(("x-a", "b\nX-Smuggled: 1")),
        "h2 value with a bare CR": two(("x-a", "b\rX-Smuggled: 1")),
        "h2 value with a NUL": two(("x-a", "b\x00X-Smuggled: 1")),
        "h2 name with CRLF": two(("x-a: b\r\nx-smuggled", "1")),
        "h2 name with a colon": two(("x-smuggled: 1", "b")),
        "h2 name with a blank": two(("x-smuggled x", "b")),
        "h2 name that is empty": two(("", "b")),
        "h2 trailer with CRLF": two(body=b"x", trailers=(("x-a", "b\r\n\r\nGET /smuggled-MARK HTTP/1.1"),)),
        "h2 trailer with a pseudo-header": two(body=b"x", trailers=((":path", "/smuggled-MARK"),)),
        "h2 method with a blank": two(method=f"GET /smuggled-MARK HTTP/1.1\r\nHost: {NOWHERE}\r\n\r\nGET"),
        "h2 method with a target": two(method="GET /smuggled-MARK"),
        "h2 path with a request": two(path=line),
        "h2 path with a blank": two(path=f"{HOSTILE} HTTP/1.1"),
        "h2 path without a slash": two(path="smuggled-MARK"),
        "h2 path that is absolute": two(path=f"https://{NOWHERE}/hostile-MARK"),
        "h2 path that is empty": two(path=""),
        "h2 path twice": two((":path", "/smuggled-MARK")),
        "h2 pseudo-header after a header": two(("x-a", "b"), (":authority", NOWHERE)),
        "h2 pseudo-header that is unknown": two((":smuggled", "1")),
        "h2 authority with CRLF": two(authority=f"{SITE}\r\nX-Smuggled: 1"),
        "h2 authority with a path": two(authority=f"{NOWHERE}/smuggled-MARK?"),
        "h2 authority with a user": two(authority=f"{SITE}@{NOWHERE}"),
        "h2 host against authority": two(("host", NOWHERE)),
        "h2 host without authority": two(("host", f"{SITE}\r\nX-Smuggled: 1"), authority=""),
        "h2 scheme with a target": two(scheme=f"http://{NOWHERE}/smuggled-MARK?"),
        "h2 scheme with CRLF": two(scheme="https\r\nX-Smuggled: 1"),
        "h2 connection header": two(("connection", "content-length, host"), ("content-length", "0"), body=SMUGGLED),
        "h2 upgrade": two(("connection", "upgrade"), ("upgrade", "h2c")),
        "h2 CONNECT by a protocol": two((":protocol", "websocket"), method="CONNECT", body=SMUGGLED),
        "h2 expect": two(("expect", "100-continue"), ("content-length", "0"), body=SMUGGLED, path=f"{HOSTILE}/early"),
    }


HTTP1 = {**two_lengths(), **lengths(), **chunks(), **heads(), **orders()}
HTTP2 = http2()
