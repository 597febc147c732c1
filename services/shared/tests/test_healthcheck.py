import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.healthcheck import main


@pytest.fixture(params=[b"HTTP/1.1 200 OK", b"HTTP/1.1 503 Service Unavailable"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A port that gives one answer, and the exit status that it deserves."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(request.param + b"\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()[1], 0 if b"200" in request.param else 1
        thread.join()


def test_only_200_is_healthy(server: tuple[int, int]) -> None:
    port, status = server
    assert main(["http", str(port), "/readyz"]) == status


def test_a_closed_port_is_unhealthy(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert main(["http", str(port), "/"]) == 1
    assert str(port) in capsys.readouterr().err


def test_a_file_that_was_touched_is_fresh_until_it_is_not(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    assert main(["fresh", str(file), "10"]) == 1
    file.touch()
    assert main(["fresh", str(file), "10"]) == 0
    os.utime(file, (time.time() - 11, time.time() - 11))
    assert main(["fresh", str(file), "10"]) == 1


def test_a_wrong_command_line_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fresh"]) == 2
    assert "SECONDS" in capsys.readouterr().err
