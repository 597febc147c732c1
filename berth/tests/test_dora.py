"""`berth status --dora`: what counts as a deployment, a failure and a recovery, and what a person reads of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from berth.metrics import dora as measured
from berth.metrics.exposition import Metrics
from berth.release import screen
from berth.release.command import answer_of, arguments_of, formatted, moment
from berth.release.dora import dora
from berth.release.settings import Settings

NOW = datetime(2026, 11, 29, 5, 20, tzinfo=UTC)
SECONDS_OF_A_RUN = 60.0


def when(hours: float) -> str:
    """Return the moment so many hours ago."""
    return (NOW - timedelta(hours=hours)).isoformat().replace("+00:00", "Z")


class Site:
    """Writes the history of a site, as its program does; each attempt ends so many hours ago."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.live = ""

    def attempt(self, hours: float, to: str, result: str = "live", verb: str = "release", **more: Any) -> Site:
        line: dict[str, Any] = {"at": when(hours), "run": "r", "by": "ada@laptop", "verb": verb}
        line |= {
            "from": self.live,
            "to": to,
            "colour": "green",
            "seconds_since_switch": SECONDS_OF_A_RUN,
            "result": result,
            "seconds": 90.0,
        }
        self.lines.append(line | {"reason": "", "steps": {}} | more)
        if result == "live":
            self.live = to
        return self

    def back(self, hours: float, to: str, result: str = "live") -> Site:
        return self.attempt(hours, to, result, "rollback")

    def seen(self, days: int = 30) -> dict[str, Any]:
        return dora(self.lines, NOW.timestamp(), days)

    def shown(self, days: int = 30) -> list[str]:
        return screen.dora({"site": "www.x-shop.net", **self.seen(days)}).splitlines()


def busy() -> Site:
    """Five releases: one that the watch rolled back, one that an operator did; two say when they were committed."""
    site = Site().attempt(800, "1.0").attempt(600, "1.1", committed=when(604)).attempt(400, "1.2")
    site.attempt(300, "1.3", "failed", reason="Release 1.3 performs worse than 1.2 did").attempt(200, "1.4")
    return site.back(190, "1.2").attempt(100, "1.5", committed=when(102))


def test_a_release_counts_once_traffic_was_switched_to_it_and_a_rollback_does_not() -> None:
    site = busy().attempt(90, "1.6", "failed", seconds_since_switch=None)
    assert site.seen()["deployments"] == 5
    assert site.seen(days=40)["deployments"] == 6
    assert site.seen(days=5)["deployments"] == 1


def test_a_release_failed_where_the_watch_or_an_operator_rolled_it_back() -> None:
    known = busy().seen()
    assert [(one["release"], one["how"]) for one in known["failures"]] == [
        ("1.3", "failed after the switch"),
        ("1.4", "rolled back by ada@laptop"),
    ]
    assert known["change_failure_ratio"] == 0.4
    assert known["failures"][0]["reason"] == "Release 1.3 performs worse than 1.2 did"


def test_what_was_interrupted_after_the_switch_and_undone_failed() -> None:
    known = Site().attempt(9, "1.0").attempt(8, "1.1", "undone").seen()
    assert [one["how"] for one in known["failures"]] == ["undone after the switch"]


def test_lead_time_is_from_the_newest_commit_to_the_switch() -> None:
    known = busy().seen()
    # 4 h and 2 h until the end of the run, of which a minute was after the switch.
    assert known["lead_time_seconds"] == 3 * 3600 - SECONDS_OF_A_RUN
    assert known["lead_times"] == 2


def test_a_clock_of_the_controller_that_is_ahead_gives_no_negative_time() -> None:
    assert Site().attempt(1, "1.0", committed=when(0.5)).seen()["lead_time_seconds"] == 0


def test_service_is_restored_when_another_release_is_live() -> None:
    known = busy().seen()
    minute = SECONDS_OF_A_RUN
    # The watch's rollback is over when its run is; an operator's, at its switch, ten hours after that of 1.4.
    assert [one["restore_seconds"] for one in known["failures"]] == [minute, 10 * 3600]
    assert known["time_to_restore_seconds"] == (minute + 10 * 3600) / 2


def test_a_rollback_that_failed_restores_nothing() -> None:
    site = Site().attempt(20, "1.0").attempt(10, "1.1").back(9, "1.0", "failed").back(8, "1.0")
    assert [one["restore_seconds"] for one in site.seen()["failures"]] == [2 * 3600]


def test_a_first_release_that_fails_is_restored_by_the_next_that_is_live() -> None:
    site = Site().attempt(10, "1.0", "failed")
    assert (site.seen()["time_to_restore_seconds"], site.seen()["not_restored"]) == (None, 1)
    assert "time to restore  1 not restored yet" in site.shown()
    known = site.attempt(9, "1.1", "failed").attempt(7, "1.2").seen()
    assert [one["restore_seconds"] for one in known["failures"]] == [3 * 3600, 2 * 3600]


def test_a_release_that_is_rolled_back_after_a_rollback_to_it_failed_since_then() -> None:
    site = Site().attempt(500, "1.0").attempt(400, "1.1").attempt(10, "1.2").back(9, "1.1").back(8, "1.0")
    assert {one["release"]: one["restore_seconds"] for one in site.seen()["failures"]} == {"1.1": 3600, "1.2": 3600}


def test_a_rollback_to_what_is_live_already_and_one_of_a_release_that_is_not_known_are_no_failures() -> None:
    site = Site().attempt(10, "1.0").back(9, "1.0")
    site.live = "0.9"
    assert site.back(8, "1.0").seen()["failures"] == []


def test_another_start_of_the_live_release_for_new_secrets_is_no_deployment() -> None:
    assert Site().attempt(10, "1.0").attempt(9, "1.0").seen()["deployments"] == 1


def test_lines_of_earlier_versions_and_of_other_verbs_are_read() -> None:
    old = {"by": "eve", "from": "", "result": "live", "verb": "release"}
    lines: list[dict[str, Any]] = [
        {**old, "at": when(9), "to": "1.0"},
        {**old, "at": when(8), "to": "1.1", "result": "failed"},
        {"at": when(7), "verb": "upgrade", "databases": {"mongo": "7 -> 8"}, "result": "live"},
        {"at": when(6)},
    ]
    known = dora(lines, NOW.timestamp())
    assert (known["deployments"], known["lead_times"], known["failures"]) == (1, 0, [])


# --- what is read of it ---


def test_a_person_reads_the_four_on_one_screen() -> None:
    assert busy().shown() == [
        "www.x-shop.net: DORA metrics of the last 30 days, until 2026-11-29 05:20 UTC",
        "deployments      5 (1.2 a week); the last 4 days ago",
        "lead time        3 h from commit to live, the median of 2; of 3 more the commit is not known",
        "change failures  40 % (2 of 5): 1.4 rolled back by ada@laptop, 1.3 failed after the switch",
        "time to restore  5 h, the median of 2",
    ]


def test_however_much_failed_it_fits_in_ten_lines() -> None:
    site = Site().attempt(700, "0.9.0-0123456789abcdef")
    for number in range(40):
        site.attempt(690 - number, f"1.0.{number}-0123456789abcdef", "failed")
    shown = site.shown()
    assert len(shown) <= 10
    assert max(map(len, shown)) <= screen.WIDTH
    assert any(line.startswith("change failures  98 % (40 of 41)") for line in shown)


def test_without_a_release_there_is_no_rate() -> None:
    assert Site().shown()[1:] == ["No release in 30 days; there was none yet."]
    old = Site().attempt(60 * 24, "1.0")
    assert old.shown()[1:] == ["No release in 30 days; the last went live 2026-09-30 05:19 UTC, 60 days ago."]
    known = old.seen()
    assert [known[name] for name in ("lead_time_seconds", "change_failure_ratio", "time_to_restore_seconds")] == [
        None
    ] * 3


def test_of_one_release_without_a_commit_it_says_so_and_that_the_history_is_young() -> None:
    [_, deployments, lead, failures, restore] = Site().attempt(2, "1.0").shown(days=1)
    assert deployments == "deployments      1 (1 a day); the last 2 h ago; the history begins 2026-11-29 03:20 UTC"
    assert lead.startswith("lead time        not known: no release says when its sources were committed")
    assert (failures, restore) == ("change failures  none of 1", "time to restore  nothing to restore")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("2026-11-29T06:20:00+01:00", "2026-11-29T05:20:00Z"),
        ("2026-11-29T05:20:00Z", "2026-11-29T05:20:00Z"),
        ("", ""),
        ("fatal: not a git repository", ""),
    ],
)
def test_the_time_of_a_commit_is_kept_in_utc_and_what_is_none_is_left_out(text: str, kept: str) -> None:
    assert moment(text) == kept


@pytest.mark.parametrize("days", ["0", "-1", "all", "99999"])
def test_a_period_that_makes_no_sense_is_refused(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments_of(["status", "--dora", "--days", days])
    assert "--days" in capsys.readouterr().err


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    numbers = dict.fromkeys(Settings.__dataclass_fields__, 1)
    places = {"root": tmp_path, "edge": tmp_path, "domain": "www.x-shop.net", "address": "127.0.0.1", "managed": []}
    (tmp_path / "releases").mkdir()
    return Settings(**{**numbers, **places})  # type: ignore[arg-type]  # numbers where none matter


def test_the_command_prints_text_for_people_and_the_object_for_programs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("berth.host.clock.time", NOW.timestamp)
    settings.history.write_text("".join(json.dumps(line) + "\n" for line in busy().lines))
    asked = arguments_of(["status", "--dora"])
    assert formatted(answer_of(asked, settings), asked).splitlines() == busy().shown()
    asked = arguments_of(["status", "--dora", "--days=5", "--json"])
    known = json.loads(formatted(answer_of(asked, settings), asked))
    assert (known["site"], known["days"], known["deployments"]) == ("www.x-shop.net", 5, 1)


# --- the metrics ---


def samples(history: Path) -> dict[str, float]:
    metrics = Metrics()
    measured.measure(metrics, history)
    lines = [line.split() for line in metrics.text().splitlines() if not line.startswith("#")]
    return {name.removeprefix("berth_dora_"): float(value) for name, value in lines}


def test_prometheus_gets_the_same_four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berth.host.clock.time", NOW.timestamp)
    history = tmp_path / "releases.jsonl"
    history.write_text("".join(json.dumps(line) + "\n" for line in busy().lines))
    assert samples(history) == {
        "deployments": 5,
        "lead_time_seconds": 10740,
        "change_failure_ratio": 0.4,
        "time_to_restore_seconds": 18030,
    }


def test_what_is_not_known_is_no_metric_of_0(tmp_path: Path) -> None:
    assert samples(tmp_path / "releases.jsonl") == {"deployments": 0}
