"""Artefacts have the same bytes as in `goldens/artefacts.json`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.goldens import artefacts
from tests.helpers import python

MAKE = "from tests.goldens import artefacts; artefacts.main()"
COMPLETE = ("digest", "models", "portable")


@pytest.mark.slow
def test_artefacts_are_the_same_bytes_as_before() -> None:
    golden = json.loads(artefacts.GOLDEN.read_text(encoding="utf-8"))
    ran = python(MAKE, env={"PYTHONPATH": str(Path(__file__).parents[1])})
    assert ran.code == 0, ran.err
    current = ran.document
    comparable = all(current[key] == golden[key] for key in ("cpu", "versions"))
    compared = COMPLETE if comparable else ("portable",)  # another CPU or library may sum in another order

    def part(content: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
        return {path: {key: row[key] for key in compared} for path, row in content.items()}

    assert part(current["artefacts"]) == part(golden["artefacts"])
