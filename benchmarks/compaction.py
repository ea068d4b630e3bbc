"""Effect of compaction and the other passes on every network: `python benchmarks/compaction.py OUT [MODEL...]`.

Prints two Markdown tables and writes `OUT/compaction.json`: channels, parameters and FLOPs of the plain graph and of
the artefact, the time of compaction, and the speed-up of the artefact against the plain graph, on the same target
(`lmconv export --explain`) and, for trained weights, against ONNX Runtime (`ratio_flushed` of `lmconv bench`); one
thread, batch 1. Networks without trained weights get seeded random weights, which have no dead channels: compaction
must not change these networks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lmconv.sources import resolve as source
from lmconv.store import artifact as artifacts
from lmconv.visual.tables import markdown

TARGETS = ("onnx", "openvino")
LMCONV = Path(sys.executable).with_name("lmconv")


def main() -> None:
    """Measures all networks and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="*", help="networks to measure; by default all")
    arguments = parser.parse_args()
    out: Path = arguments.out
    rows = [row for model in arguments.models or source.names("landmarks") for row in network(model, out)]
    (out / "compaction.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(sizes(rows))
    print()
    print(speeds(rows))


def network(model: str, out: Path) -> list[dict[str, Any]]:
    """Converts and times one network; returns one row per target."""
    targets = [part for target in TARGETS for part in ("--to", target)]
    exported = run(
        "export", model, "--random-weights", "--no-guard", *targets, "--explain", "--out", str(out), "--json"
    )
    trained = [row["path"] for row in exported["artifacts"] if not row["weights"].startswith("random")]
    timed = run("bench", *trained, "--json")["rows"] if trained else []
    ratios = {row["path"]: row["ratio_flushed"] for row in timed}
    return [describe(row, ratios.get(row["path"])) for row in exported["artifacts"]]


def describe(row: dict[str, Any], ratio: float | None) -> dict[str, Any]:
    """Returns the figures of one artefact.

    Args:
        row: Row of the artefact in the document of `lmconv export`.
        ratio: `ratio_flushed` of `lmconv bench`; None if the artefact was not timed.
    """
    artifact = artifacts.read(Path(row["path"]))
    decisions = artifacts.decided(artifact.recipe, "compact") or {"layers": [], "multiple": None}
    layers = decisions["layers"]
    print(row["path"], file=sys.stderr, flush=True)
    return {
        "model": row["model"],
        "target": row["target"],
        "weights": "random" if row["weights"].startswith("random") else "trained",
        "channels": [sum(layer["channels"][place] for layer in layers) for place in (0, 1)],
        "dead": sum(layer["dead"] for layer in layers),
        "multiple": decisions["multiple"],
        "seconds": artifact.measured["passes"]["compact"]["seconds"],
        "explained": row["explained"],
        "ratio_flushed": ratio,
    }


def run(*arguments: str) -> Any:
    """Runs a command; returns its JSON document."""
    done = subprocess.run([str(LMCONV), *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def sizes(rows: list[dict[str, Any]]) -> str:
    """Removed channels, parameters and FLOPs as a Markdown table."""
    header = ["network", "weights", "target", "dead channels", "channels", "multiple", "parameters", "GFLOP", "s"]
    return markdown(header, [_size(row) for row in rows])


def _size(row: dict[str, Any]) -> list[str]:
    total = row["explained"]["total"]
    return [
        row["model"],
        row["weights"],
        row["target"],
        str(row["dead"]),
        " → ".join(f"{count:,}" for count in row["channels"]),
        str(row["multiple"]),
        " → ".join(f"{count:,}" for count in total["parameters"]),
        " → ".join(f"{count / 1e9:.3f}" for count in total["flops"]),
        f"{row['seconds']:.1f}",
    ]


def speeds(rows: list[dict[str, Any]]) -> str:
    """Speed-ups as a Markdown table."""
    header = ["network", "target", "by compact", "by all passes", "ratio_flushed"]
    return markdown(header, [_speed(row) for row in rows])


def _speed(row: dict[str, Any]) -> list[str]:
    compact = next(step for step in row["explained"]["passes"] if step["pass"] == "compact")
    gains = [compact["faster"], row["explained"]["total"]["faster"]]
    cells = [f"{gain['median']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}]" if gain else "" for gain in gains]
    return [row["model"], row["target"], *cells, f"{row['ratio_flushed']:.2f}" if row["ratio_flushed"] else ""]


if __name__ == "__main__":
    main()
