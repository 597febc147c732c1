"""Metrics in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Mapping


class Metrics:
    """Collects samples and writes each metric once, with its help before its samples."""

    def __init__(self) -> None:
        self._help: dict[str, str] = {}
        self._samples: dict[str, list[str]] = {}

    def add(self, name: str, meaning: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        self._help.setdefault(name, meaning)
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in (labels or {}).items())
        self._samples.setdefault(name, []).append(f"{name}{{{shown}}} {value!r}" if shown else f"{name} {value!r}")

    def text(self) -> str:
        lines = []
        for name, samples in self._samples.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {self._help[name]}", f"# TYPE {name} {kind}", *samples]
        return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
