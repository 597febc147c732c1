"""Collect facts about a host and its outgoing connections; change nothing.

Runs on the host, as root if possible, before anything is installed, with the standard library alone:
    python3 host.py < JSON: what `examine` below reads; this is the only way in which secrets reach it
Prints JSON: one entry for each subject. Each check over the network gives {"ok": ..., "said": ...}.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import glob
import hashlib
import hmac
import http.client
import json
import os
import platform
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
SECONDS = 10
RESTIC_SECONDS = 60
RELEASE_SECONDS = 60
NO_REPOSITORY, LOCKED, WRONG_PASSWORD = 10, 11, 12
REFUSED = (401, 403)


def run(*command: str, given: str = "", env: dict[str, str] | None = None, seconds: float = 20) -> tuple[int, str, str]:
    """Return status, output and errors; a missing program or a timeout counts as a failure."""
    try:
        done = subprocess.run(
            command,
            input=given,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr


# --- The host --------------------------------------------------------------------------------------------------------


def system() -> Answer:
    release = {}
    with contextlib.suppress(OSError):
        for line in Path("/etc/os-release").read_text().splitlines():
            name, _, value = line.partition("=")
            release[name] = value.strip('"')
    return {
        "id": release.get("ID", "unknown"),
        "name": release.get("PRETTY_NAME", "an unknown system"),
        "version": release.get("VERSION_ID", ""),
        "systemd": Path("/run/systemd/system").is_dir(),
        "architecture": platform.machine(),
        "flags": cpu_flags(),
        "container": container(),
        "root": os.geteuid() == 0,
    }


def container() -> str:
    _, said, _ = run("systemd-detect-virt", "--container")
    return "" if said.strip() in ("", "none") else said.strip()


def cpu_flags() -> list[str]:
    with contextlib.suppress(OSError):
        found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
        return found[1].split() if found else []
    return []


def memory_mb() -> int:
    found = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)
    return int(found[1]) // 1024 if found else 0


def disk(path: str) -> Answer:
    """Return the free space of the file system of a path, which need not exist yet."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    inodes = round(100 * found.f_favail / found.f_files) if found.f_files else 100
    return {"free_mb": found.f_bavail * found.f_frsize // 1048576, "inodes_free_percent": inodes}


def clock() -> Answer:
    _, synchronized, _ = run("timedatectl", "show", "--property=NTPSynchronized", "--value")
    return {"synchronized": {"yes": True, "no": False}.get(synchronized.strip())}


def firewall() -> Answer:
    """Return whether Berth's table is loaded, and the other tables that drop incoming packets by default."""
    _, rules, _ = run("nft", "list", "ruleset")
    tables = dict(re.findall(r"^table (\w+ \w+) \{(.*?)^\}", rules, re.M | re.S))
    closing = [
        name
        for name, text in tables.items()
        if re.search(r"hook input [^;]*; policy drop;", text) and name != "inet berth"
    ]
    return {"berth": "inet berth" in tables, "others": closing}


def listeners(ports: list[int]) -> dict[str, list[str]]:
    """Return the programs that listen on each of these ports."""
    _, said, _ = run("ss", "-Hltnp")
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        fields = line.split()
        port = fields[3].rpartition(":")[2] if len(fields) > 3 else ""
        if port in map(str, ports):
            found.setdefault(port, []).extend(re.findall(r'\("([^"]+)"', line) or ["a program"])
    return {port: sorted(set(names)) for port, names in found.items()}


def missing() -> list[Answer]:
    """Return missing components with their remedies, as `berth status` reports them.

    Empty if berth is not installed, or too old to report them.
    """
    _, said, _ = run("berth", "status", "--json", seconds=RELEASE_SECONDS)
    with contextlib.suppress(ValueError):
        known = json.loads(said)
        return list(known.get("missing") or []) if isinstance(known, dict) else []
    return []


def updates() -> Answer:
    return {"reboot": Path("/run/reboot-required").exists()}


# --- Its outgoing connections ----------------------------------------------------------------------------------------


def trust(settings: Answer) -> ssl.SSLContext:
    """Return a context that trusts the given CA and presents the given client certificate (PEM)."""
    context = ssl.create_default_context(cadata=settings.get("ca") or None)
    if settings.get("certificate"):
        # The ssl module reads only files: this one is in memory and ends with the process.
        file = os.memfd_create("client")
        os.write(file, f"{settings['certificate']}\n{settings['key']}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{file}")
        os.close(file)
    return context


def why(error: BaseException) -> str:
    """Return the reason of a failure in a few words."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({reason.verify_message})"
    if isinstance(reason, TimeoutError):
        return "timed out"
    if isinstance(reason, socket.gaierror):
        return "the host cannot resolve its name"
    return getattr(reason, "strerror", None) or str(reason)


def guarded(ask: Callable[[], Answer]) -> Answer:
    """Return the result, or the reason of the failure."""
    try:
        return ask()
    except (OSError, http.client.HTTPException, smtplib.SMTPException, ValueError, KeyError) as error:
        return {"ok": False, "said": why(error)}


def http_status(
    url: str, headers: dict[str, str], context: ssl.SSLContext | None, method: str = "GET", body: bytes | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Return status, headers and the first 64 KiB of the body; redirects are not followed."""
    where = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    options: dict[str, Any] = {"context": context or ssl.create_default_context()} if where.scheme == "https" else {}
    connection = kind(where.hostname or "", where.port, timeout=SECONDS, **options)
    try:
        path = (where.path or "/") + (f"?{where.query}" if where.query else "")
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read(65536)
    finally:
        connection.close()


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def acme(asked: Answer) -> Answer:
    """Fetch the authority's directory; the response has its time."""
    status, headers, body = http_status(asked["directory"], {"User-Agent": "berth-doctor"}, trust(asked))
    found = json.loads(body)
    if status != 200 or "newOrder" not in found:
        return {"ok": False, "said": f"HTTP {status}, and no ACME directory"}
    moment = email.utils.parsedate_to_datetime(headers["Date"]).timestamp() if headers.get("Date") else None
    identities = (found.get("meta") or {}).get("caaIdentities") or []
    return {"ok": True, "said": "it answers", "identities": identities, "offset": moment and time.time() - moment}


def rate_limits(edge: str) -> Answer:
    """Return the last rate limit error of the authority in the edge's log of the last week."""
    # Exit code 1: nothing found.
    code, said, errors = run(
        "journalctl", "--quiet", "--all", "--no-pager", "--since=-7d", "--output=cat", "--grep=rateLimited",
        f"CONTAINER_NAME={edge}_a-1", f"CONTAINER_NAME={edge}_b-1",
    )  # fmt: skip
    if code not in (0, 1):
        return {"ok": None, "said": errors.strip()}
    return {"ok": True, "last": said.strip().splitlines()[-1] if said.strip() else ""}


def certificate(domain: str, address: str) -> Answer:
    """Return issuer, names and remaining days of the edge's certificate for the domain."""
    context = ssl._create_unverified_context()  # noqa: S323  # reads the certificate, whether or not it is valid
    with (
        socket.create_connection((address, 443), timeout=SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=domain) as secure,
    ):
        pem = ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")
    code, said, errors = run("openssl", "x509", "-noout", "-issuer", "-enddate", "-ext", "subjectAltName", given=pem)
    if code:
        return {"ok": None, "said": f"openssl cannot read it ({errors.strip()})"}
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    return {
        "ok": True,
        "issuer": found.get("issuer", ""),
        "days": (ssl.cert_time_to_seconds(found["notAfter"]) - time.time()) / 86400,
        "names": re.findall(r"DNS:([^,\s]+)", said),
    }


def smtp(asked: Answer) -> Answer:
    """Log in and send MAIL FROM and RCPT TO; send a test mail only if mail_to is set."""
    where, security = (asked["host"], int(asked["port"])), asked["security"]
    step = "connecting"
    try:
        if security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(*where, timeout=SECONDS, context=trust(asked))
        else:
            server = smtplib.SMTP(*where, timeout=SECONDS)
        with server:
            server.ehlo_or_helo_if_needed()
            if security == "starttls":
                step = "STARTTLS"
                server.starttls(context=trust(asked))
            if asked["username"]:
                step = "login"
                server.login(asked["username"], asked["password"])
            step = "sender"
            sender = email.utils.parseaddr(asked["sender"])[1]
            answered = server.mail(sender)
            if answered[0] != 250:
                raise smtplib.SMTPResponseException(*answered)
            to = asked["mail_to"] or asked["operator"]
            if to:
                step = "recipient"
                answered = server.rcpt(to)
                if answered[0] not in (250, 251):
                    raise smtplib.SMTPResponseException(*answered)
            server.rset()
            if asked["mail_to"]:
                step = "mail"
                server.send_message(test_mail(asked), sender, [asked["mail_to"]])
        return {"ok": True, "step": step, "said": ""}
    except smtplib.SMTPResponseException as error:
        text = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return {"ok": False, "step": step, "said": f"{error.smtp_code} {text}", "code": error.smtp_code}
    except (OSError, smtplib.SMTPException) as error:
        return {"ok": False, "step": step, "said": why(error)}


def test_mail(asked: Answer) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = f"[{asked['domain']}] Test mail of the doctor"
    mail["From"], mail["To"] = asked["sender"], asked["mail_to"]
    mail["Date"], mail["Message-ID"] = email.utils.formatdate(), email.utils.make_msgid(domain=asked["domain"])
    mail.set_content(f"{socket.gethostname()} can send mail for {asked['domain']} through {asked['host']}.\n")
    return mail


@contextlib.contextmanager
def folder_in_memory(files: list[dict[str, str]]) -> Iterator[str]:
    """Write the files that ssh and restic read to a private directory in memory, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="berth-doctor-", dir="/dev/shm") as folder:
        for one in files:
            descriptor = os.open(f"{folder}/{one['name']}", os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(one["content"])
        yield folder


def backup(target: Answer) -> Answer:
    """Open a repository with restic; if restic is not installed, check only whether the storage answers."""
    if not shutil.which("restic"):
        return {**store_answers(target), "opened": False}
    with folder_in_memory(target["files"]) as folder:
        values = {name: value.replace("@FOLDER@", folder) for name, value in target["environment"].items()}
        options = [f"--option={name}={value.replace('@FOLDER@', folder)}" for name, value in target["options"].items()]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "SSL_CERT_FILE") if name in os.environ}
        code, _, errors = run(
            "restic", *options, "--no-cache", "--no-lock", "cat", "config",
            env={**kept, **values, "RESTIC_REPOSITORY": target["repository"], "RESTIC_PASSWORD": target["password"]},
            seconds=RESTIC_SECONDS,
        )  # fmt: skip
    if code == NO_REPOSITORY:
        return {"ok": None, "said": "the storage answers; there is no repository yet"}
    if code == WRONG_PASSWORD:
        return {"ok": False, "said": "the repository does not open with vault_backup_password", "password": True}
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("Fatal: ")] or lines
    return {"ok": code == 0, "opened": True, "said": telling[-1] if code and telling else f"restic exited with {code}"}


def store_answers(target: Answer) -> Answer:
    """Check storage without restic: rest and S3 with the credentials, sftp by its port."""
    kind, _, rest = target["repository"].partition(":")
    values = target["environment"]
    ca = next((one["content"] for one in target["files"] if one["name"].endswith(".ca.pem")), "")
    if kind == "rest":
        return guarded(lambda: rest_answers(rest, values, trust({"ca": ca})))
    if kind == "s3":
        return guarded(lambda: s3_answers(rest, values, trust({"ca": ca})))
    if kind == "sftp":
        place = (
            urllib.parse.urlsplit(rest) if rest.startswith("//") else urllib.parse.urlsplit("//" + rest.split(":")[0])
        )
        return guarded(lambda: connects(place.hostname or "", place.port or 22))
    return {"ok": None, "said": f"a repository of type {kind} can be checked once restic is installed"}


def rest_answers(url: str, values: dict[str, str], context: ssl.SSLContext) -> Answer:
    headers = {"Accept": "application/vnd.x.restic.rest.v2"}
    if values.get("RESTIC_REST_USERNAME"):
        headers |= basic(values["RESTIC_REST_USERNAME"], values.get("RESTIC_REST_PASSWORD", ""))
    status, _, _ = http_status(url.rstrip("/") + "/config", headers, context, "HEAD")
    return {"ok": status in (200, 404), "said": store_said(status), "status": status}


def store_said(status: int) -> str:
    if status in REFUSED:
        return f"the storage refuses the credentials ({status})"
    return f"the storage answers: HTTP {status}"


def s3_answers(url: str, values: dict[str, str], context: ssl.SSLContext) -> Answer:
    """List a bucket, with a signature of version 4."""
    url = url if "://" in url else f"https://{url}"
    where = urllib.parse.urlsplit(url)
    bucket = where.path.strip("/").split("/")[0]
    query, region = "list-type=2&max-keys=1", values.get("AWS_DEFAULT_REGION", "us-east-1")
    now = datetime.now(UTC)
    moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    empty = hashlib.sha256().hexdigest()
    headers = {"host": where.netloc, "x-amz-content-sha256": empty, "x-amz-date": moment}
    signed = ";".join(headers)
    request = "\n".join(
        ["GET", f"/{bucket}", query, *(f"{name}:{value}" for name, value in headers.items()), "", signed, empty]
    )
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{values.get('AWS_SECRET_ACCESS_KEY', '')}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    login = (
        f"AWS4-HMAC-SHA256 Credential={values.get('AWS_ACCESS_KEY_ID', '')}/{scope}, SignedHeaders={signed}, Signature="
    )
    headers["Authorization"] = login + hmac.digest(key, text.encode(), "sha256").hex()
    status, _, body = http_status(f"{where.scheme}://{where.netloc}/{bucket}?{query}", headers, context)
    code = re.search(rb"<Code>(\w+)</Code>", body)
    # Also fine: a bucket that restic will create, and one in another region, which the storage tells restic.
    fine = status in (200, 301, 307, 404) or (code and code[1] == b"AuthorizationHeaderMalformed")
    return {"ok": bool(fine), "said": store_said(status), "status": status}


def connects(name: str, port: int, context: ssl.SSLContext | None = None) -> Answer:
    with socket.create_connection((name, port), timeout=SECONDS) as plain:
        if context:
            with context.wrap_socket(plain, server_hostname=name) as secure:
                refusal(secure)
    return {"ok": True, "said": "it answers"}


def refusal(secure: ssl.SSLSocket) -> None:
    """Wait for a refusal of our client certificate, which TLS 1.3 sends after the handshake."""
    secure.settimeout(1)
    with contextlib.suppress(TimeoutError):
        if secure.recv(1) == b"":
            raise ConnectionResetError("the server closed the connection")


def registry(asked: Answer) -> Answer:
    """Log in to a registry as docker does: with the password, or with a token of its token service."""
    login = basic(asked["username"], asked["password"]) if asked["username"] else {}
    url = f"{asked['scheme']}://{asked['host']}/v2/"
    status, headers, _ = http_status(url, login, None)
    challenge = headers.get("WWW-Authenticate", "")
    if status == 401 and challenge.lower().startswith("bearer"):
        parts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = urllib.parse.urlencode(
            {name: parts[name] for name in ("service",) if name in parts}
            | {"scope": f"repository:{asked['repository']}:pull"}
        )
        status, _, body = http_status(f"{parts['realm']}?{query}", login, None)
        token = json.loads(body).get("token") or json.loads(body).get("access_token") if status == 200 else ""
        if status == 200 and token:
            status, _, _ = http_status(url, {"Authorization": f"Bearer {token}"}, None)
    return {"ok": status == 200, "status": status, "said": f"HTTP {status}", "anonymous": not login}


def log_server(one: Answer) -> Answer:
    """Connect to a log server; if it is HTTP, send a request with the credentials."""
    if one["type"] in ("relp", "syslog_tls"):
        return connects(one["host"], int(one["port"]), trust(one))
    headers = {}
    if one.get("token"):
        headers["Authorization"] = f"{'Bearer' if one['type'] == 'loki' else 'ApiKey'} {one['token']}"
    elif one.get("username"):
        headers = basic(one["username"], one["password"])
    if one.get("tenant"):
        headers["X-Scope-OrgID"] = one["tenant"]
    url = one["url"].rstrip("/")
    if one["type"] == "loki":
        # An empty push stores nothing. Loki may reject it as empty, after it has checked the credentials.
        headers["Content-Type"] = "application/json"
        status, _, _ = http_status(f"{url}/loki/api/v1/push", headers, trust(one), "POST", b'{"streams": []}')
        known = status in (200, 204, 400, 422)
    else:
        # A key that may only add documents is accepted here and gets 403; a proxy in front answers 502 to 504.
        status, _, _ = http_status(url + "/", headers, trust(one))
        known = status not in (401, 500, 502, 503, 504)
    return {"ok": known, "status": status, "said": f"HTTP {status}"}


def traces(asked: Answer) -> Answer:
    """Send an empty batch, which is valid, to a collector."""
    headers = {"Content-Type": "application/x-protobuf", **asked["headers"]}
    status, _, _ = http_status(asked["endpoint"], headers, trust(asked), "POST", b"")
    return {"ok": status < 400, "status": status, "said": f"HTTP {status}"}


def web(url: str) -> Answer:
    """Connect to the address of a URL without a request: a request to a webhook would be a message."""
    where = urllib.parse.urlsplit(url)
    secure = where.scheme in ("https", "rediss")
    default = {"http": 80, "https": 443, "mongodb": 27017, "redis": 6379, "rediss": 6379}.get(where.scheme)
    if default is None:
        return {"ok": None, "said": f"addresses of type {where.scheme} are not checked"}
    with contextlib.suppress(ValueError):
        return connects(where.hostname or "", where.port or default, ssl.create_default_context() if secure else None)
    # mongodb:// may name several hosts.
    host, _, port = where.netloc.rpartition("@")[2].split(",")[0].partition(":")
    return connects(host, int(port or default))


def archives() -> dict[str, str]:
    """Return host -> URL of the package archives in apt's sources."""
    found = {}
    for path in ["/etc/apt/sources.list", *glob.glob("/etc/apt/sources.list.d/*")]:
        with contextlib.suppress(OSError):
            for line in Path(path).read_text(errors="replace").splitlines():
                if not line.lstrip().startswith("#"):
                    for url in re.findall(r"\bhttps?://[^\s\]]+", line):
                        found[urllib.parse.urlsplit(url).hostname or ""] = url
    return found


# --- Everything ------------------------------------------------------------------------------------------------------


def examine(asked: Answer) -> Answer:
    """Collect all facts; checks over the network run in parallel."""
    now = time.time()
    jobs: dict[str, Callable[[], Answer]] = {}
    if asked.get("acme"):
        jobs["acme"] = lambda: acme(asked["acme"])
    if asked.get("smtp"):
        jobs["smtp"] = lambda: smtp(asked["smtp"])
    if asked.get("registry"):
        jobs["registry"] = lambda: registry(asked["registry"])
    if asked.get("traces"):
        jobs["traces"] = lambda: traces(asked["traces"])
    for one in asked.get("backups") or []:
        jobs[f"backups/{one['name']}"] = lambda one=one: backup(one)  # type: ignore[misc]
    for one in asked.get("log_servers") or []:
        jobs[f"log_servers/{one['name']}"] = lambda one=one: log_server(one)  # type: ignore[misc]
    for name, url in (asked.get("web") or {}).items():
        jobs[f"web/{name}"] = lambda url=url: web(url)  # type: ignore[misc]
    for name, url in archives().items():
        jobs[f"archives/{name}"] = lambda url=url: web(url)  # type: ignore[misc]
    address = asked.get("own_address") or ""
    if address and asked.get("domain"):
        jobs["certificate"] = lambda: certificate(asked["domain"], address)
    if asked.get("edge"):
        jobs["limits"] = lambda: rate_limits(asked["edge"])
    found: Answer = {
        "now": now,
        "system": system(),
        "memory_mb": memory_mb(),
        "disks": {path: disk(path) for path in asked["disks"]},
        "clock": clock(),
        "zone": Path("/usr/share/zoneinfo", asked["timezone"]).is_file(),
        "firewall": firewall(),
        "listeners": listeners(asked["ports"]),
        "updates": updates(),
        "missing": missing(),
        "provisioned": Path(asked["root"], ".env").exists(),
        "restic": bool(shutil.which("restic")),
    }
    with ThreadPoolExecutor(16) as pool:
        for name, answer in zip(jobs, pool.map(guarded, jobs.values()), strict=True):
            group, _, key = name.partition("/")
            if key:
                found.setdefault(group, {})[key] = answer
            else:
                found[group] = answer
    return dict(masked(found, [str(one) for one in asked.get("secrets") or []]))


def masked(found: Any, secrets: list[str]) -> Any:
    """Replace every secret with ***."""
    if isinstance(found, dict):
        return {key: masked(value, secrets) for key, value in found.items()}
    if isinstance(found, list):
        return [masked(one, secrets) for one in found]
    if isinstance(found, str):
        for secret in secrets:
            found = found.replace(secret, "***")
    return found


if __name__ == "__main__":
    print(json.dumps(examine(json.load(sys.stdin))))
