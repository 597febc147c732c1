"""Counts the words of new entries; writes a digest of the day before.

python3 worker.py            polls until it is told to stop
python3 worker.py digest     writes one row for yesterday, and ends
python3 worker.py healthy    exit status 0 if it has polled within the last half minute
"""

import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg

POLL_SECONDS = 1
ALIVE = Path("/tmp/alive")
ALIVE_SECONDS = 30
PORT = 9100
BATCH = """
    SELECT id, message FROM entries WHERE words IS NULL ORDER BY created_at LIMIT 50 FOR UPDATE SKIP LOCKED
"""
DIGEST = """
    INSERT INTO days (day, entries, words)
    SELECT current_date - 1, count(*), coalesce(sum(words), 0) FROM entries
    WHERE NOT hidden AND created_at >= current_date - 1 AND created_at < current_date
    ON CONFLICT (day) DO UPDATE SET entries = excluded.entries, words = excluded.words
    RETURNING day, entries, words
"""
counted = 0


def connect() -> psycopg.Connection:
    password = Path("/run/secrets/postgres_password").read_text().strip()
    return psycopg.connect(host="postgres", user="app", dbname="app", password=password, connect_timeout=5)


def count_words(connection: psycopg.Connection) -> int:
    """Count the words of a batch; return how many entries it had. Two workers never get the same one."""
    with connection.transaction(), connection.cursor() as cursor:
        found = cursor.execute(BATCH).fetchall()
        cursor.executemany(
            "UPDATE entries SET words = %s WHERE id = %s", [(len(text.split()), key) for key, text in found]
        )
    return len(found)


def work(stopping: threading.Event) -> None:
    global counted
    connection = None
    while not stopping.is_set():
        try:
            connection = connection or connect()
            done = count_words(connection)
        except psycopg.OperationalError as error:
            print(f"database: {error}", flush=True)
            connection, done = None, 0
        else:
            ALIVE.touch()
        if done:
            counted += done
            print(f"counted the words of {done} entries", flush=True)
        else:
            stopping.wait(POLL_SECONDS)
    if connection:
        connection.close()
    print("stopped in good order", flush=True)


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"# TYPE guestbook_entries_counted_total counter\nguestbook_entries_counted_total {counted}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """A scrape is no event."""


def main(arguments: list[str]) -> int:
    if arguments == ["healthy"]:
        return 0 if ALIVE.exists() and time.time() - ALIVE.stat().st_mtime < ALIVE_SECONDS else 1
    if arguments == ["digest"]:
        with connect() as connection:
            print("digest: {} had {} entries with {} words".format(*connection.execute(DIGEST).fetchone()), flush=True)
        return 0
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.Thread(target=ThreadingHTTPServer(("", PORT), Metrics).serve_forever, daemon=True).start()
    work(stopping)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
