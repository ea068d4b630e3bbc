"""`lmconv run`: landmarks of the faces in pictures, videos, cameras and streams, drawn and saved."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmconv.console import Console, Outcome, attempt, command
from lmconv.errors import MissingRuntime, UsageError
from lmconv.options import TRUST

if TYPE_CHECKING:
    from lmconv.running.inputs import Item
    from lmconv.running.saving import Saver, Tally
    from lmconv.running.stream import Result, Settings
    from lmconv.running.window import Window
    from lmconv.types import Artifact, Json

OUT = Path("build/run")
MOST = 100_000_000
"""Pixels of the largest picture that is read by default: 300 MB, and a few of them are in memory at once."""

HELP = """Finds faces and their landmarks in pictures, folders, videos, a camera or a stream; draws and saves them.

INPUT is a picture, a folder (with all below it), a video, or the URL of a stream. Pictures are turned as their EXIF
data says; grey, palette and alpha are handled, and of 16 bits the upper eight are used. OUT gets every picture with
points, contours and boxes drawn, a video as MP4, landmarks.jsonl with one line a picture or frame, and .pts files;
folders keep their structure, equal names get a number, and what an earlier run wrote under a name is replaced. What
goes wrong with one input is reported, the others go on, and the exit code says so.

In a video a face is followed from its last landmarks and keeps its number; the detector looks again when one is lost,
and every few frames. Videos, cameras and streams are shown in a window where there is a display, which q or Esc closes;
what a camera sees is then written only where --out says so.

The default detector, rfb320, is the fastest, and needs no PyTorch.

\b
Examples:
  lmconv run build/pfld/openvino-fp32 photos/ --out found
  lmconv run build/pfld/openvino-fp32 clip.mp4 --smooth
  lmconv run build/pfld/onnx-fp32 group.jpg --detector retinaface --json
  lmconv run build/pfld/onnx-fp32 a.jpg --boxes boxes.csv
  lmconv run build/pfld/openvino-fp32 --camera 0
"""


@command(name="run", help=HELP, short_help="Find landmarks in pictures, videos and cameras.")
@click.argument("path", type=click.Path(path_type=Path), metavar="ARTIFACT")
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("--camera", type=click.IntRange(0), help="Number of a camera.")
@click.option(
    "--detector",
    default="rfb320",
    show_default=True,
    help="mtcnn, retinaface, faceboxes, rfb320, slim320 or yunet; or artefacts of its networks, with commas between.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="The detector's, or a folder to look in first.")
@click.option("--boxes", type=click.Path(path_type=Path), help="Where faces are: CSV image,x1,y1,x2,y2 or JSON lines.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help=f"Folder for what is found.  [{OUT}]")
@click.option("--smooth", is_flag=True, help="Videos: the one-euro filter on every landmark.")
@click.option("--no-track", is_flag=True, help="Videos: detect on every frame, and cut faces out there.")
@click.option("--detect-every", type=click.IntRange(1), default=15, show_default=True, help="Videos: frames between.")
@click.option("--show/--no-show", default=None, help="A window; by default for video where there is a display.")
@click.option("--no-pts", is_flag=True, help="Write no .pts files.")
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MOST,
    show_default=True,
    envvar="OPENCV_IO_MAX_IMAGE_PIXELS",
    help="Larger pictures are refused before they are decoded.",
)
@click.option(
    "--threads", type=click.IntRange(0), default=1, show_default=True, help="Of each network; 0: its runtime's."
)
@click.option("--trust", is_flag=True, help=TRUST)
def plugin(
    console: Console,
    *,
    path: Path,
    inputs: tuple[str, ...],
    camera: int | None,
    boxes: Path | None,
    out: Path | None,
    show: bool | None,
    no_pts: bool,
    max_pixels: int,
    **how: Any,
) -> Outcome:
    if not inputs and camera is None:
        raise UsageError("nothing to find faces in", hint="name pictures, folders, videos or a URL, or give --camera 0")
    _tell_opencv(max_pixels, console.verbose)
    from lmconv.running import stream
    from lmconv.running.saving import Saver
    from lmconv.scheme import scheme

    settings = _settings(boxes, how)
    artifact = stream.checked(path, settings.options)
    outcome = Outcome(document={})
    items = _items(console, inputs, camera, out or OUT, boxes, outcome.errors)
    _check(items, settings, how)
    with _window(items, show, str(path)) as window:
        live = all(item.kind == "camera" for item in items)
        place = None if window and live and out is None else out or OUT
        with Saver(out=place, scheme=scheme(artifact.spec.landmarks), pts=not no_pts) as saver:
            _run(console, items, artifact, settings, saver, window, outcome)
    outcome.document = _document(saver.tallies, artifact, settings, place)
    outcome.text = _text(outcome.document)
    return outcome


def _tell_opencv(most: int, verbose: bool) -> None:
    """What it reads from the environment when it is loaded; what goes wrong is said by us, in one line."""
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(most)
    if not verbose:
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET


def _settings(boxes: Path | None, how: Json) -> Settings:
    from lmconv.running.stream import Settings
    from lmconv.types import OpenOptions

    given = click.get_current_context().get_parameter_source("detector")
    if boxes and given is click.core.ParameterSource.COMMANDLINE:
        raise UsageError("--boxes and --detector both say where faces are", hint="leave one of them out")
    return Settings(
        detector=how["detector"],
        weights=how["weights"],
        boxes=boxes,
        track=not how["no_track"],
        every=how["detect_every"],
        smooth=how["smooth"],
        options=OpenOptions(threads=how["threads"], trust=how["trust"]),
    )


def _items(
    console: Console, inputs: Sequence[str], camera: int | None, out: Path, boxes: Path | None, errors: list[Json]
) -> list[Item]:
    from lmconv.running import inputs as naming

    found: list[Item] = []
    for text in inputs:
        found += attempt(console, functools.partial(naming.named, text, out), errors, path=text) or []
    items = naming.distinct(found if camera is None else [*found, naming.camera(camera)])
    naming.check_out(items, out, boxes)
    return items


def _check(items: Sequence[Item], settings: Settings, how: Json) -> None:
    """Refuses what would have no effect."""
    if any(item.kind != "picture" for item in items) or not items:
        return
    if settings.smooth or not settings.track:
        option = "--smooth" if settings.smooth else "--no-track"
        raise UsageError(f"{option} is for videos, and there is none", hint="leave it out, or name a video")


@contextmanager
def _window(items: Sequence[Item], show: bool | None, title: str) -> Iterator[Window | None]:
    """A window where one is asked for; for what moves, where there is a display and somebody at the terminal."""
    from lmconv.running import window

    kinds = {item.kind for item in items}
    moving = "camera" in kinds or (sys.stderr.isatty() and bool(kinds & {"video", "stream"}))
    with ExitStack() as stack:
        shown = None
        if show or (show is None and moving):
            try:
                shown = stack.enter_context(window.opened(title))
            except MissingRuntime:
                if show:
                    raise
        yield shown


def _run(
    console: Console,
    items: Sequence[Item],
    artifact: Artifact,
    settings: Settings,
    saver: Saver,
    window: Window | None,
    outcome: Outcome,
) -> None:
    from lmconv.running import stream

    def speed() -> str:
        return f"{saver.tallies[-1].fps:.0f} frames/s" if saver.tallies else ""

    if not items:
        return
    steps = stream.steps(items)
    failed: Item | None = None  # of a video that cannot be written every frame would fail
    with console.progress(steps, "faces", speed) as step, stream.results(items, artifact, settings) as results:
        for result in results:
            item = result.frame.item
            save = functools.partial(_save, console, saver, result, window)
            if item is not failed and not attempt(console, save, outcome.errors, path=item.label):
                failed = item
            step()
            if window and window.closed:
                break


def _save(console: Console, saver: Saver, result: Result, window: Window | None) -> bool:
    """True, unless it raises: so `attempt` tells what was saved."""
    drawn = saver.save(result)
    item = result.frame.item
    if item.kind == "picture" and not result.faces:
        console.note(f"{item.label}: no face")
    if window:
        from lmconv.visual.marks import text

        text(drawn, f"{saver.tallies[-1].fps:.0f} frames/s", (8, 24), size=1.5)
        window.show(drawn)
    return True


def _document(tallies: Sequence[Tally], artifact: Artifact, settings: Settings, out: Path | None) -> Json:
    rows = [
        {
            "path": tally.item.label,
            "kind": tally.item.kind,
            "frames": tally.frames,
            "faces": tally.faces,
            "without_face": tally.empty,
            "fps": round(tally.fps, 1),
            "saved": str(out / tally.item.drawn) if out else None,
        }
        for tally in tallies
        if tally.frames
    ]
    return {
        "artifact": str(artifact.path),
        "detector": None if settings.boxes else settings.detector,
        "out": str(out) if out else None,
        "inputs": rows,
        "frames": sum(tally.frames for tally in tallies),
        "faces": sum(tally.faces for tally in tallies),
        "fps": _fps(tallies),
    }


def _fps(tallies: Sequence[Tally]) -> float:
    """Frames per second of all inputs, but for the first frame."""
    seconds = tallies[-1].began + tallies[-1].seconds - tallies[0].began if tallies else 0.0
    frames = sum(tally.frames for tally in tallies)
    return round((frames - 1) / seconds, 1) if seconds else 0.0


def _text(document: Json) -> str:
    rows = document["inputs"]
    pictures = [row for row in rows if row["kind"] == "picture"]
    lines = [
        f"{row['path']}: {row['frames']} frames, {row['without_face']} without a face, {row['fps']:.0f} frames/s"
        for row in rows
        if row["kind"] != "picture"
    ]
    if pictures:
        faces, empty = (sum(row[key] for row in pictures) for key in ("faces", "without_face"))
        lines.append(f"{len(pictures)} pictures: {faces} faces, {empty} without a face")
    return "\n".join([*lines, *([f"saved in {document['out']}"] if rows and document["out"] else [])])
