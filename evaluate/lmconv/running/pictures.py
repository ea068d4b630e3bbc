"""Reads picture files of every kind as 8-bit pictures with three channels, upright."""

from __future__ import annotations

from pathlib import Path

from lmconv.errors import InputError
from lmconv.networks.squares import as_uint8
from lmconv.store.files import jpeg_breaks_off, named_in_text
from lmconv.types import Uint8


def read_picture(path: Path) -> Uint8:
    """Reads a picture file.

    The picture is rotated as its EXIF data says. Grey pictures and palettes become colours; alpha is dropped. Of 16
    bits per channel the upper eight are kept.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        InputError: The file cannot be read or decoded, its name is not UTF-8, or the picture has more pixels than
            OpenCV's limit.
    """
    import cv2

    name = named_in_text(path)
    try:
        content = path.read_bytes()
        picture = cv2.imread(name, cv2.IMREAD_COLOR) if content else None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="check the file and its permissions") from error
    except cv2.error as error:
        if error.func == "validateInputImageSize":
            raise InputError(
                f"{path} has too many pixels", hint="scale the picture down, or raise --max-pixels"
            ) from error
        raise InputError(f"{path} cannot be decoded: {error.err}", hint="restore the file, or leave it out") from error
    if picture is None:
        problem = "is broken, or not a picture that OpenCV can decode" if content else "is empty"
        raise InputError(f"{path} {problem}", hint="restore the file, or leave it out")
    if jpeg_breaks_off(content):
        raise InputError(
            f"{path} is truncated: the end of the JPEG file is missing", hint="restore the file, or leave it out"
        )
    return as_uint8(picture)
