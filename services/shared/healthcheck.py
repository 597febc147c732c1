"""Docker asks this, so it imports next to nothing.

python3 -m shared.healthcheck http 8000 /readyz     exit 0 when the answer is 200
python3 -m shared.healthcheck fresh FILE SECONDS    exit 0 when the file was touched that recently
"""

import os
import socket
import sys
import time


def answers_200(port: int, path: str) -> bool:
    """Ask over a plain socket: importing an HTTP client would take longer than the question."""
    with socket.create_connection(("127.0.0.1", port), timeout=4) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return connection.recv(12) == b"HTTP/1.1 200"


def is_fresh(path: str, seconds: float) -> bool:
    return time.time() - os.stat(path).st_mtime <= seconds


def main(arguments: list[str]) -> int:
    match arguments:
        case ["http", port, path]:
            check, reason = answers_200, f"port {port} does not answer {path} with 200"
            values: tuple[object, ...] = (int(port), path)
        case ["fresh", path, seconds]:
            check, reason = is_fresh, f"{path} was not touched within {seconds} s"  # type: ignore[assignment]
            values = (path, float(seconds))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    try:
        healthy = check(*values)  # type: ignore[arg-type]
    except OSError as error:
        reason, healthy = f"{reason}: {error}", False
    if not healthy:
        print(reason, file=sys.stderr)
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
