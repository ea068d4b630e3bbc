"""What tests share: the folder of real data, and small networks with seeded weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"
REQUIRED = "LMCONV_REQUIRE_REALDATA"
"""Set to 1 in CI: there the real data must be present."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests on real data where there is none; in CI they fail instead, in the fixture."""
    if not SHARED.is_dir() and os.environ.get(REQUIRED, "0") == "0":
        missing = pytest.mark.skip(reason="no real data beside the repository")
        for item in items:
            if item.get_closest_marker("realdata"):
                item.add_marker(missing)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of trained weights, annotated faces and golden outputs."""
    if not SHARED.is_dir():
        pytest.fail(f"the real data is missing, and {REQUIRED} asks for it")
    return SHARED
