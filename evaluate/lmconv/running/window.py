"""A window that shows frames, made with tkinter of the standard library: OpenCV's headless package has no windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lmconv.errors import MissingRuntime
from lmconv.types import Uint8
from lmconv.visual.encoding import encode

if TYPE_CHECKING:
    import tkinter

MAX_SIZE = (1280, 720)
"""Largest width and height of a shown frame, pixels; larger frames are shrunk."""


class Window:
    """Shows frames until the user closes the window, or presses q or Esc.

    Attributes:
        closed: True after the user has closed the window.
    """

    def __init__(self, root: tkinter.Tk) -> None:
        import tkinter

        self.closed = False
        self._root, self._label = root, tkinter.Label(root, borderwidth=0)
        self._label.pack()
        for event in ("q", "<Escape>"):
            root.bind(event, self._close)
        root.protocol("WM_DELETE_WINDOW", self._close)

    def show(self, picture: Uint8) -> None:
        """Shows a frame, (H, W, 3) uint8, BGR, and handles the events of the window."""
        import tkinter

        import cv2

        height, width = picture.shape[:2]
        scale = min(1.0, MAX_SIZE[0] / width, MAX_SIZE[1] / height)
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        image = tkinter.PhotoImage(data=encode(picture, ".ppm"), format="PPM")
        self._label.configure(image=image)
        self._image = image  # tkinter keeps no reference to the image
        self._root.update()

    def _close(self, _: object = None) -> None:
        self.closed = True


@contextmanager
def open_window(title: str) -> Iterator[Window]:
    """Opens a window; the window closes when the context ends.

    Raises:
        MissingRuntime: The machine has no display, or Python has no tkinter.
    """
    try:
        import tkinter

        root = tkinter.Tk(className="lmconv")
    except ImportError as error:
        raise MissingRuntime(
            "no window can be opened: Python has no tkinter", hint="apt install python3-tk, or leave out --show"
        ) from error
    except tkinter.TclError as error:
        raise MissingRuntime(
            f"no window can be opened: {error}", hint="leave out --show: the files are written without a window"
        ) from error
    root.title(title)
    try:
        yield Window(root)
    finally:
        root.destroy()
