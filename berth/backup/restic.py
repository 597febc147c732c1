"""All calls of restic."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import threading
from collections import deque
from collections.abc import Iterator
from subprocess import CompletedProcess, TimeoutExpired
from typing import IO, Any

from berth.backup.settings import Settings, Target
from berth.host import commands
from berth.host.refused import Refused

LAST_LINES = 8
PROBE_SECONDS = 30
QUICK_SECONDS = 300
# How long restic waits for the lock of another host that prunes the same repository.
LOCK_WAIT = "10m"
# Restic itself tries again for a quarter of an hour before it gives up.
END_SECONDS = 1200
STOP_SECONDS = 20
PIECE = 1024 * 1024
CACHE_ROOM = 256 * 1024 * 1024
# Pieces that may be queued for a repository that is slower than the dump.
WAITING = 16
NO_REPOSITORY, LOCKED, WRONG_KEY = 10, 11, 12


class Store:
    """A target as restic sees it."""

    def __init__(self, settings: Settings, target: Target) -> None:
        self._settings = settings
        self.target = target
        self.name = target.name
        self.password = settings.password

    @property
    def environment(self) -> dict[str, str]:
        """Credentials are passed to restic only, and never on a command line."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE") if name in os.environ}
        return {
            **kept,
            **self.target.environment,
            "RESTIC_REPOSITORY": self.target.repository,
            "RESTIC_PASSWORD": self.password,
            "RESTIC_CACHE_DIR": str(self._settings.cache),
            # Ten lines a second would only fill the journal.
            "RESTIC_PROGRESS_FPS": "0.01",
        }

    def command(self, *arguments: str) -> list[str]:
        options = [f"--option={name}={value}" for name, value in self.target.options.items()]
        return ["restic", *options, f"--retry-lock={LOCK_WAIT}", self._cache(), *arguments]

    def _cache(self) -> str:
        """Disable the cache on an almost full disk, where restic would keep trying to write to it."""
        try:
            free = shutil.disk_usage(self._settings.cache).free
        except OSError:
            free = 0
        return "--cleanup-cache" if free > CACHE_ROOM else "--no-cache"

    def run(self, *arguments: str, seconds: float = QUICK_SECONDS, given: str = "") -> CompletedProcess[str]:
        """Run restic; a timeout is a failure like any other."""
        done = commands.run_bytes(
            *self.command(*arguments), seconds=seconds, given=given.encode(), env=self.environment
        )
        texts = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return CompletedProcess(done.args, done.returncode, *texts)

    def ask(self, *arguments: str, seconds: float = QUICK_SECONDS) -> str:
        """Run restic and return its output, or refuse with the reason."""
        done = self.run(*arguments, seconds=seconds)
        if done.returncode:
            raise self.refusal(done.returncode, done.stderr or done.stdout, arguments[0])
        return done.stdout

    def refusal(self, code: int, output: str, verb: str) -> Refused:
        """Describe a failure of restic in one sentence."""
        lines = [line for line in output.strip().splitlines() if line.strip()][-LAST_LINES:]
        if code == NO_REPOSITORY:
            reason = (
                f"The repository of target {self.name} is missing at {self.target.repository}, though it had backups. "
                f"Find out why; to create a new one: berth backup init {self.name}"
            )
        elif code == WRONG_KEY:
            reason = (
                f"The repository of target {self.name} does not open with backup_password: "
                "it is another repository, or the password was changed in the vault."
            )
        elif code == LOCKED:
            reason = (
                f"The repository of target {self.name} has been locked for {LOCK_WAIT} by another host or program; "
                f"`berth backup restic {self.name} list locks` names it."
            )
        else:
            # Advice may follow the error.
            telling = [line for line in lines if line.startswith("Fatal: ")] or lines
            last = _plain(telling[-1]) if telling else f"restic {verb} ended with {code}"
            reason = f"Target {self.name} ({self.target.repository}): {last}"
        return Refused(reason, lines=lines)

    def opens(self, password: str) -> bool:
        """Tell whether the repository opens with this password, and use it from now on."""
        self.password = password
        done = self.run("cat", "config", "--no-lock", seconds=PROBE_SECONDS)
        if done.returncode not in (0, WRONG_KEY):
            raise self.refusal(done.returncode, done.stderr, "cat")
        return done.returncode == 0

    def exists(self) -> bool:
        """Tell whether there is a repository that opens with the password; refuse where that cannot be known."""
        done = self.run("cat", "config", "--no-lock", seconds=PROBE_SECONDS)
        if done.returncode == WRONG_KEY and self._settings.previous_password not in ("", self.password):
            # berth backup rekey has not run on this repository yet.
            self.password = self._settings.previous_password
            done = self.run("cat", "config", "--no-lock", seconds=PROBE_SECONDS)
        if done.returncode == NO_REPOSITORY:
            return False
        if done.returncode == commands.LATE:
            raise Refused(f"Target {self.name} ({self.target.repository}) does not answer.", lines=_lines(done.stderr))
        if done.returncode:
            raise self.refusal(done.returncode, done.stderr, "cat")
        return True

    def init(self) -> None:
        self.ask("init", seconds=PROBE_SECONDS)

    def key(self) -> str:
        """Return the key that the password belongs to."""
        listed = json.loads(self.ask("key", "list", "--json", "--no-lock"))
        return next(str(one["id"]) for one in listed if one["current"])

    def add_key(self, password: str) -> None:
        """Add a password to the repository, passed through a pipe."""
        done = self.run("key", "add", "--new-password-file=/dev/stdin", given=f"{password}\n")
        if done.returncode:
            raise self.refusal(done.returncode, done.stderr, "key add")

    def unlock(self) -> None:
        """Remove stale locks, such as one from before a reboot."""
        self.ask("unlock", "--quiet")

    def snapshots(self, *tags: str) -> list[dict[str, Any]]:
        """Return the snapshots of this site that have all of these tags, the oldest first."""
        wanted = ",".join(("berth", *tags))
        listed: list[dict[str, Any]] = json.loads(
            self.ask("snapshots", "--json", f"--host={self._settings.site}", f"--tag={wanted}") or "[]"
        )
        return sorted(listed or [], key=lambda one: str(one["time"]))

    def backup_arguments(self, tags: list[str], *arguments: str) -> tuple[str, ...]:
        tagged = (f"--tag={tag}" for tag in ("berth", *tags))
        return ("backup", "--json", "--quiet", f"--host={self._settings.site}", *tagged, *arguments)

    def back_up_paths(self, paths: list[str], tags: list[str]) -> dict[str, Any]:
        """Back up files where they lie."""
        arguments = self.backup_arguments(tags, "--exclude-caches", "--", *paths)
        done = self.run(*arguments, seconds=24 * 3600)
        # 3: some file could not be read
        if done.returncode:
            raise self.refusal(done.returncode, _errors(done.stderr), "backup")
        return _summary(done.stdout.splitlines(), self)

    def back_up_text(self, text: str, file: str, tags: list[str]) -> str:
        """Back up a short text as one file and return its snapshot."""
        upload = Upload(self, file, tags)
        upload.give(text.encode(), QUICK_SECONDS)
        return upload.end()

    @contextlib.contextmanager
    def read(self, snapshot: str, file: str) -> Iterator[IO[bytes]]:
        """Stream a file of a snapshot; refuse at the end if it was incomplete."""
        process = commands.start(*self.command("dump", snapshot, file), env=self.environment)
        assert process.stdin  # noqa: S101
        assert process.stdout  # noqa: S101
        process.stdin.close()
        errors = Lines(process.stderr)
        with commands.killed_on_error(process):
            yield process.stdout
        process.stdout.close()
        code = process.wait()
        if code:
            raise self.refusal(code, errors.text(), "dump")

    def read_text(self, snapshot: str, file: str) -> str:
        return self.ask("dump", snapshot, file)


class Upload:
    """A restic process that backs up a stream. It becomes a snapshot only if `end` is called."""

    def __init__(self, store: Store, file: str, tags: list[str]) -> None:
        self.store = store
        arguments = store.backup_arguments(tags, "--stdin", f"--stdin-filename={file}")
        self._process = commands.start(*store.command(*arguments), env=store.environment)
        self._out, self._err = Lines(self._process.stdout), Lines(self._process.stderr)
        self._pieces: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()
        # Why it was aborted, if it was.
        self.failure: Refused | None = None

    def _write(self) -> None:
        assert self._process.stdin  # noqa: S101
        broken = False
        while (piece := self._pieces.get()) is not None:
            try:
                if not broken:
                    self._process.stdin.write(piece)
            except OSError:
                broken = True
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def give(self, piece: bytes, patience: float) -> None:
        """Send a piece; an upload that accepts none for so long is aborted, so that it does not delay the others."""
        if self.failure:
            return
        if self._process.poll() is not None:
            self.failure = self.store.refusal(self._process.returncode, self._err.text(), "backup")
            self._finish_writer()
            return
        try:
            self._pieces.put(piece, timeout=patience)
        except queue.Full:
            self.abort(
                Refused(
                    f"Target {self.store.name} ({self.store.target.repository}) accepted no data for {patience:.0f} s."
                )
            )

    def abort(self, why: Refused) -> None:
        """Stop restic before its input ends, so that a partial stream never becomes a snapshot."""
        if self.failure:
            return
        self.failure = why
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._finish_writer()

    def _finish_writer(self) -> None:
        # Restic is gone, so the writer discards what is queued.
        self._pieces.put(None)
        self._writer.join()

    def end(self, seconds: float = END_SECONDS) -> str:
        """Close the stream and return the snapshot."""
        if not self.failure:
            try:
                self._pieces.put(None, timeout=seconds)
                code = self._process.wait(seconds)
            except (queue.Full, TimeoutExpired):
                where = f"Target {self.store.name} ({self.store.target.repository})"
                self.abort(Refused(f"{where} did not finish the upload within {seconds:.0f} s."))
            else:
                self._writer.join()
                if code:
                    self.failure = self.store.refusal(code, _errors(self._err.text()), "backup")
        if self.failure:
            raise self.failure
        return str(_summary(self._out.text().splitlines(), self.store)["snapshot_id"])


class Lines:
    """Reads a pipe to its end in a thread and keeps the last lines."""

    def __init__(self, pipe: Any) -> None:
        self._last: deque[str] = deque(maxlen=50)
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._last.append(line.decode(errors="replace").rstrip())

    def text(self) -> str:
        self._thread.join(STOP_SECONDS)
        return "\n".join(self._last)

    def last(self) -> list[str]:
        return _lines(self.text())


def _lines(output: str) -> list[str]:
    return [line for line in output.strip().splitlines() if line.strip()][-LAST_LINES:]


def _plain(line: str) -> str:
    """Return the sentence in a line that may be JSON."""
    if line.startswith("{"):
        with contextlib.suppress(ValueError, AttributeError):
            found = json.loads(line)
            return str(found.get("message") or found.get("error", {}).get("message") or line)
    return line.removeprefix("Fatal: ")


def _errors(output: str) -> str:
    """Return restic's errors only: the summary after them says less."""
    lines = output.splitlines()
    telling = [line for line in lines if '"error"' in line or line.startswith("error")]
    return "\n".join(telling or lines)


def _summary(lines: list[str], store: Store) -> dict[str, Any]:
    for line in reversed(lines):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            if found.get("message_type") == "summary" and found.get("snapshot_id"):
                return found
    raise Refused(f"Target {store.name}: restic exited without reporting its snapshot.", lines=lines[-LAST_LINES:])
