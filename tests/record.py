"""The last result of `make exhaustive`: when, of which commit, on which CPU, how many tests of each kind, how long."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

TREE = Path(__file__).parents[1]


class Record:
    """Counts outcomes while the tests run, and writes the file at their end; a plug-in of pytest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = time.perf_counter()
        self._outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keeps one outcome a test: that of its call, unless its fixtures failed or skipped it."""
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        """Writes the file."""
        seconds = round(time.perf_counter() - self._start)
        self._path.write_text(json.dumps(document(self._outcomes, seconds), indent=1) + "\n", encoding="utf-8")


def document(outcomes: dict[str, str], seconds: int) -> dict[str, Any]:
    """The content of the file; `outcomes` by the id of each test."""
    from lmconv import machine

    here = machine.describe()
    failed = sorted(name for name, outcome in outcomes.items() if outcome == "failed")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "cpu": {key: here[key] for key in ("cpu", "cores", "features")},
        "seconds": seconds,
        "counts": dict(sorted(Counter(outcomes.values()).items())),
        "tests": dict(sorted(Counter(name.split("::")[-1].split("[")[0] for name in outcomes).items())),
        "failed": failed,
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=TREE, capture_output=True, text=True, check=False)
    return done.stdout.strip()
