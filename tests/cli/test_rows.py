"""Keys of the JSON rows, in order: scripts and tables of users depend on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers import Cli

from lmconv.types import Json

ARTIFACT = "path model target precision io"
LATENCY = "samples median_ms low_ms high_ms p90_ms p99_ms"
ROWS = {
    "export": f"{ARTIFACT} execution bytes weights parameters flops source_parameters source_flops seconds guard int8",
    "verify": f"{ARTIFACT} execution passed trained boxes missed "
    "caveat gates limits figures parity ion_loss_unit normaliser ion source_ion delta_ion",
    "bench": f"{ARTIFACT} size timed execution caveat device threads batch {LATENCY} ratio_torch ratio_plain "
    "ratio_flushed ratio_flushed_low ratio_flushed_high cold streams",
    "report": f"{ARTIFACT} execution bytes parameters trained verified normaliser latency guard doubt int8",
}


def row_of(cli: Cli, command: str, artifact: Path, model: Path) -> Json:
    """The row of one artefact in the JSON of a command."""
    arguments = {
        "export": ("export", model, "--force"),
        "verify": ("verify", artifact),
        "bench": ("bench", artifact, "--samples", "64"),
        "report": ("report", artifact.parents[1]),
    }
    document = cli(*arguments[command], "--json").document
    row: Json = document["rows" if command == "bench" else "artifacts"][0]
    return row


@pytest.mark.parametrize("command", ROWS)
def test_the_keys_of_a_row_stay_in_order(cli: Cli, command: str, small: Path, tiny: Path) -> None:
    assert list(row_of(cli, command, small / "onnx-fp32", tiny)) == ROWS[command].split()
