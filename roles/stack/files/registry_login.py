"""Check whether an image registry accepts a login, as docker would, without an engine and without writing anything.

    python3 registry_login.py <JSON on standard input>: registry, username, password
Exits with 1 and the registry's message if it refuses the login. If it cannot be reached, such as when only the engine
has a proxy, that is no refusal: the pull will show it. Uses the standard library alone.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import sys
import urllib.parse
from pathlib import Path

SECONDS = 10
# Docker Hub: its API has another host name, which only the engine knows.
DEFAULT_REGISTRY = "docker.io"
LOCAL = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")


def trust(registry: str, folder: Path = Path("/etc/docker/certs.d")) -> ssl.SSLContext:
    """Return a context with the CAs that Docker trusts for this registry."""
    context = ssl.create_default_context()
    for authority in sorted((folder / registry).glob("*.crt")):
        context.load_verify_locations(authority)
    return context


def ask(url: str, context: ssl.SSLContext, login: str = "") -> tuple[int, str, str]:
    """Return status, challenge and body of the response. Redirects are not followed: a login is for one address.

    Raises:
        OSError: there is no response.
    """
    target = urllib.parse.urlsplit(url)
    visit = (
        http.client.HTTPSConnection(target.netloc, timeout=SECONDS, context=context)
        if target.scheme == "https"
        else http.client.HTTPConnection(target.netloc, timeout=SECONDS)
    )
    try:
        headers = {"Authorization": f"Basic {login}"} if login else {}
        visit.request("GET", f"{target.path}?{target.query}" if target.query else target.path, headers=headers)
        answer = visit.getresponse()
        return answer.status, answer.getheader("WWW-Authenticate", ""), answer.read(10000).decode(errors="replace")
    except http.client.HTTPException as error:
        raise OSError(f"it does not speak HTTP: {error!r}") from error
    finally:
        visit.close()


def words_of(status: int, body: str) -> str:
    """Return the message of a response, as docker would print it."""
    try:
        read = json.loads(body)
        errors = [f"{error.get('code', '')}: {error.get('message', '')}" for error in read.get("errors", [])]
        message = "; ".join(errors) or read.get("details") or read.get("message") or ""
    except (ValueError, AttributeError, TypeError):
        message = ""
    return f"{status} {message or ' '.join(body.split())[:200]}".strip()


def refusal(registry: str, username: str, password: str) -> str:
    """Return the registry's message if it refuses a login; empty if it accepts it or needs none.

    Raises:
        OSError: it cannot be reached.
    """
    if registry == DEFAULT_REGISTRY:
        raise OSError("only the engine knows its address")
    context = trust(registry)
    login = base64.b64encode(f"{username}:{password}".encode()).decode()
    url = f"https://{registry}/v2/"
    try:
        status, challenge, _ = ask(url, context)
    except OSError:
        if not LOCAL.fullmatch(registry):
            raise
        # Docker falls back to HTTP for a local registry, too.
        url = f"http://{registry}/v2/"
        status, challenge, _ = ask(url, context)
    if status != 401:
        return ""
    if challenge.lower().startswith("bearer"):
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        url = fields.pop("realm", "")
        if not url.startswith("https://") and not LOCAL.fullmatch(urllib.parse.urlsplit(url).netloc):
            raise OSError(f"it sends logins to {url!r}")
        url += ("&" if "?" in url else "?") + urllib.parse.urlencode({"account": username, **fields})
    elif not challenge.lower().startswith("basic"):
        raise OSError(f"it asks for {challenge!r}")
    status, _, body = ask(url, context, login)
    return words_of(status, body).replace(password, "***") if status in {401, 403} else ""


def main() -> None:
    plan = json.load(sys.stdin)
    try:
        message = refusal(plan["registry"], plan["username"], plan["password"])
    except (OSError, ValueError) as error:
        print(f"{plan['registry']} could not be reached: {error}".replace(plan["password"], "***"))
        return
    if message:
        raise SystemExit(message)


if __name__ == "__main__":
    main()
