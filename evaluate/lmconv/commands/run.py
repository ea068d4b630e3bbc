"""`lmconv run`: landmarks of the faces in pictures, videos, cameras and streams, drawn and saved."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmconv.console import Console, Outcome, attempt, command
from lmconv.errors import MissingRuntime, UsageError
from lmconv.options import TRUST

if TYPE_CHECKING:
    from lmconv.running.inputs import Item
    from lmconv.running.saving import Saver
    from lmconv.running.stream import Result, Settings
    from lmconv.running.window import Window
    from lmconv.types import Json

OUT = Path("build/run")
MAX_PIXELS = 100_000_000
"""Default for the largest number of pixels of a picture: 300 MB. A few pictures are in memory at once."""

HELP = """Detects faces and their landmarks in pictures, folders, videos, a camera or a stream; draws and saves them.

INPUT is a picture, a folder with everything below, a video, or the URL of a stream. Pictures are rotated as their EXIF
data says. Grey pictures, palettes and alpha are supported; of 16 bits per channel the upper eight are used.

OUT gets every picture with points, contours and boxes drawn, every video as MP4, landmarks.jsonl with one line per
picture or frame, and .pts files. Folders keep their structure. Equal names get a number. Files of an earlier run with
the same names are replaced. An error of one input is reported, the other inputs are processed, and the exit code tells
about the error.

In a video, a face is cut out around its last landmarks and keeps its number. The detector runs again when a face is
lost, and every few frames. If there is a display, videos, cameras and streams are shown in a window; q or Esc closes
the window. Frames of a camera that is shown in a window are saved only with --out.

The default detector, rfb320, is the fastest and needs no PyTorch.

\b
Examples:
  lmconv run build/pfld/openvino-fp32 photos/ --out found
  lmconv run build/pfld/openvino-fp32 clip.mp4 --smooth
  lmconv run build/pfld/onnx-fp32 group.jpg --detector retinaface --json
  lmconv run build/pfld/onnx-fp32 a.jpg --boxes boxes.csv
  lmconv run build/pfld/openvino-fp32 --camera 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Parameters of the command line.

    Attributes:
        path: Folder of the artefact.
        inputs: Paths and URLs of the inputs.
        camera: Number of a camera, or None.
        detector: Name of a detector, or folders of artefacts, separated by commas.
        weights: Checkpoint of the detector, or the first folder to search.
        boxes: File of boxes that replaces the detector.
        out: Folder for the output; None for the default.
        smooth: True to filter the landmarks of videos.
        no_track: True to detect faces on every frame.
        detect_every: Number of frames between two runs of the detector.
        show: True for a window, False for none, None for the default.
        no_pts: True to write no `.pts` files.
        max_pixels: Largest number of pixels of a picture.
        threads: Intra-op threads of each network; 0 for the runtime's default.
        trust: See `OpenOptions`.
    """

    path: Path
    inputs: tuple[str, ...]
    camera: int | None
    detector: str
    weights: Path | None
    boxes: Path | None
    out: Path | None
    smooth: bool
    no_track: bool
    detect_every: int
    show: bool | None
    no_pts: bool
    max_pixels: int
    threads: int
    trust: bool


@command(name="run", help=HELP, short_help="Find landmarks in pictures, videos and cameras.")
@click.argument("path", type=click.Path(path_type=Path), metavar="ARTIFACT")
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("--camera", type=click.IntRange(0), help="Number of a camera.")
@click.option(
    "--detector",
    default="rfb320",
    show_default=True,
    help="mtcnn, retinaface, faceboxes, rfb320, slim320 or yunet; or artefacts of its networks, separated by commas.",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Checkpoint of the detector, or the first folder to search."
)
@click.option("--boxes", type=click.Path(path_type=Path), help="File of boxes: CSV image,x1,y1,x2,y2 or JSON lines.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help=f"Folder for the output.  [{OUT}]")
@click.option("--smooth", is_flag=True, help="Videos: apply the one-euro filter to every landmark.")
@click.option("--no-track", is_flag=True, help="Videos: detect on every frame, and cut out the detected boxes.")
@click.option(
    "--detect-every",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    help="Videos: number of frames between two runs of the detector.",
)
@click.option("--show/--no-show", default=None, help="Show a window; default: for videos, if there is a display.")
@click.option("--no-pts", is_flag=True, help="Write no .pts files.")
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    envvar="OPENCV_IO_MAX_IMAGE_PIXELS",
    help="Refuse larger pictures, before they are decoded.",
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Threads of each network; 0 for the runtime's default.",
)
@click.option("--trust", is_flag=True, help=TRUST)
def plugin(console: Console, **parameters: Any) -> Outcome:
    request = Request(**parameters)
    if not request.inputs and request.camera is None:
        raise UsageError("no input to run on", hint="name pictures, folders, videos or a URL, or give --camera 0")
    _configure_opencv(request.max_pixels, console.verbose)
    from lmconv.running import stream, summary
    from lmconv.running.saving import Saver
    from lmconv.scheme import scheme

    settings = _settings(request)
    artifact = stream.read_landmark_artifact(request.path, settings.options)
    outcome = Outcome(document={})
    items = _items(console, request, outcome.errors)
    _refuse_without_effect(items, settings)
    with _window(items, request.show, str(request.path)) as window:
        only_cameras = all(item.kind == "camera" for item in items)
        out = None if window and only_cameras and request.out is None else request.out or OUT
        with Saver(out=out, scheme=scheme(artifact.spec.landmarks), pts=not request.no_pts) as saver:
            _run(console, stream.results(items, artifact, settings), items, saver, window, outcome.errors)
    detector = None if request.boxes else request.detector
    outcome.document = summary.document(saver.tallies, artifact=artifact.path, detector=detector, out=out)
    outcome.text = summary.text(outcome.document)
    return outcome


def _configure_opencv(max_pixels: int, verbose: bool) -> None:
    """Sets the environment variables that OpenCV reads on import.

    OpenCV's own messages are silenced unless `verbose`: lmconv reports every error itself, in one line.
    """
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(max_pixels)
    if not verbose:
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET


def _settings(request: Request) -> Settings:
    """Returns the settings for detecting and tracking.

    Raises:
        UsageError: The user gave both `--boxes` and `--detector`.
    """
    from lmconv.running.stream import Settings
    from lmconv.types import OpenOptions

    source = click.get_current_context().get_parameter_source("detector")
    if request.boxes and source is click.core.ParameterSource.COMMANDLINE:
        raise UsageError("--boxes and --detector are both sources of boxes", hint="leave out one of them")
    return Settings(
        detector=request.detector,
        weights=request.weights,
        boxes=request.boxes,
        track=not request.no_track,
        every=request.detect_every,
        smooth=request.smooth,
        options=OpenOptions(threads=request.threads, trust=request.trust),
    )


def _items(console: Console, request: Request, errors: list[Json]) -> list[Item]:
    """Returns the inputs that the user names; an input that does not exist is added to `errors`."""
    from lmconv.running import inputs

    items: list[Item] = []
    out = request.out or OUT
    for text in request.inputs:
        items += attempt(console, functools.partial(inputs.resolve_input, text, out), errors, path=text) or []
    if request.camera is not None:
        items.append(inputs.camera(request.camera))
    items = inputs.with_unique_names(items)
    inputs.check_output(items, out, request.boxes)
    return items


def _refuse_without_effect(items: Sequence[Item], settings: Settings) -> None:
    """Refuses options for videos if all inputs are pictures."""
    if any(item.kind != "picture" for item in items) or not items:
        return
    if settings.smooth or not settings.track:
        option = "--smooth" if settings.smooth else "--no-track"
        raise UsageError(
            f"{option} is for videos, and no input is a video", hint=f"leave out {option}, or name a video"
        )


@contextmanager
def _window(items: Sequence[Item], show: bool | None, title: str) -> Iterator[Window | None]:
    """Opens a window if the user asks for one; by default for a camera, and for videos at a terminal.

    Yields:
        The window; None without one. Without a display the default is no window.
    """
    from lmconv.running.window import open_window

    kinds = {item.kind for item in items}
    show_by_default = "camera" in kinds or (sys.stderr.isatty() and bool(kinds & {"video", "stream"}))
    with ExitStack() as stack:
        window = None
        if show or (show is None and show_by_default):
            try:
                window = stack.enter_context(open_window(title))
            except MissingRuntime:
                if show:
                    raise
        yield window


def _run(
    console: Console,
    results: AbstractContextManager[Iterator[Result]],
    items: Sequence[Item],
    saver: Saver,
    window: Window | None,
    errors: list[Json],
) -> None:
    """Saves and shows all results; an input with an error is added to `errors`."""
    from lmconv.running.frames import count_frames

    def speed() -> str:
        return f"{saver.tallies[-1].fps:.0f} frames/s" if saver.tallies else ""

    if not items:
        return
    failed: Item | None = None  # a video that cannot be written is reported once, not once per frame
    with console.progress(count_frames(items), "faces", speed) as step, results as computed:
        for result in computed:
            item = result.frame.item
            save = functools.partial(_save, console, saver, result, window)
            if item is not failed and not attempt(console, save, errors, path=item.label):
                failed = item
            step()
            if window and window.closed:
                break


def _save(console: Console, saver: Saver, result: Result, window: Window | None) -> bool:
    """Saves and shows a result; returns True, because `attempt` returns None after an error."""
    drawn = saver.save(result)
    item = result.frame.item
    if item.kind == "picture" and not result.faces:
        console.note(f"{item.label}: no face")
    if window:
        from lmconv.visual.overlay import draw_text

        draw_text(drawn, f"{saver.tallies[-1].fps:.0f} frames/s", (8, 24), size=1.5)
        window.show(drawn)
    return True
