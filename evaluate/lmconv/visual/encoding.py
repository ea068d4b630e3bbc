"""Encodes pictures as the bytes of a picture file: the only place that does so."""

from __future__ import annotations

from lmconv.types import Uint8


def encode(picture: Uint8, suffix: str, *, jpeg_quality: int | None = None) -> bytes:
    """Returns the bytes of a picture file.

    Args:
        picture: (H, W, 3) uint8, BGR.
        suffix: Suffix of the file name, which selects the format: ".png", ".jpg", ….
        jpeg_quality: 0 to 100, for JPEG only; None for OpenCV's default, 95.

    Raises:
        ValueError: OpenCV cannot encode this picture in this format.
    """
    import cv2

    parameters = [] if jpeg_quality is None else [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
    encoded, content = cv2.imencode(suffix, picture, parameters)
    if not encoded:
        raise ValueError(f"OpenCV cannot encode a picture of {picture.shape} as {suffix}")
    return content.tobytes()
