"""Summary of one `lmconv run`: the document of `--json`, and the text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmconv.running.saving import Tally
from lmconv.types import Json


def document(tallies: Sequence[Tally], *, artifact: Path, detector: str | None, out: Path | None) -> Json:
    """Returns the document of `--json` (docs/run.md), without `errors`.

    Args:
        tallies: Counts of all inputs, in order.
        artifact: Folder of the artefact.
        detector: The detector; None with a file of boxes.
        out: Folder for the output; None if nothing was saved.
    """
    rows = [
        {
            "path": tally.item.label,
            "kind": tally.item.kind,
            "frames": tally.frames,
            "faces": tally.faces,
            "without_face": tally.empty,
            "fps": round(tally.fps, 1),
            "saved": str(out / tally.item.drawn_file) if out else None,
        }
        for tally in tallies
        if tally.frames
    ]
    return {
        "artifact": str(artifact),
        "detector": detector,
        "out": str(out) if out else None,
        "inputs": rows,
        "frames": sum(tally.frames for tally in tallies),
        "faces": sum(tally.faces for tally in tallies),
        "fps": _fps(tallies),
    }


def _fps(tallies: Sequence[Tally]) -> float:
    """Returns the frames per second of all inputs together, without the first frame."""
    seconds = tallies[-1].start + tallies[-1].seconds - tallies[0].start if tallies else 0.0
    frames = sum(tally.frames for tally in tallies)
    return round((frames - 1) / seconds, 1) if seconds else 0.0


def text(summary: Json) -> str:
    """Returns the text of a `document`: a line per video, camera and stream, one line for all pictures."""
    rows = summary["inputs"]
    pictures = [row for row in rows if row["kind"] == "picture"]
    lines = [
        f"{row['path']}: {row['frames']} frames, {row['without_face']} without a face, {row['fps']:.0f} frames/s"
        for row in rows
        if row["kind"] != "picture"
    ]
    if pictures:
        faces, empty = (sum(row[key] for row in pictures) for key in ("faces", "without_face"))
        lines.append(f"{len(pictures)} pictures: {faces} faces, {empty} without a face")
    return "\n".join([*lines, *([f"saved in {summary['out']}"] if rows and summary["out"] else [])])
