"""A window for frames, of the standard library's tkinter: OpenCV's own is not in its headless package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lmconv.errors import MissingRuntime
from lmconv.types import Uint8

if TYPE_CHECKING:
    import tkinter

LARGEST = (1280, 720)
"""Width and height that larger frames are scaled down to."""


class Window:
    """Shows frames until a person closes it, or presses q or Esc."""

    def __init__(self, root: tkinter.Tk) -> None:
        import tkinter

        self.closed = False
        self._root, self._label = root, tkinter.Label(root, borderwidth=0)
        self._label.pack()
        for event in ("q", "<Escape>"):
            root.bind(event, self._close)
        root.protocol("WM_DELETE_WINDOW", self._close)

    def show(self, picture: Uint8) -> None:
        """Shows a frame, (H, W, 3) uint8, BGR, and hears what was pressed."""
        import tkinter

        import cv2

        height, width = picture.shape[:2]
        scale = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        data = cv2.imencode(".ppm", picture)[1].tobytes()
        image = tkinter.PhotoImage(data=data, format="PPM")
        self._label.configure(image=image)
        self._image = image  # tkinter does not keep it
        self._root.update()

    def _close(self, _: object = None) -> None:
        self.closed = True


@contextmanager
def opened(title: str) -> Iterator[Window]:
    """Opens a window.

    Raises:
        MissingRuntime: There is no display, or Python has no tkinter.
    """
    try:
        import tkinter

        root = tkinter.Tk(className="lmconv")
    except ImportError as error:
        raise MissingRuntime(
            "no window can be opened: Python has no tkinter", hint="apt install python3-tk, or leave --show out"
        ) from error
    except tkinter.TclError as error:
        raise MissingRuntime(f"no window can be opened: {error}", hint="leave --show out: files are written") from error
    root.title(title)
    try:
        yield Window(root)
    finally:
        root.destroy()
