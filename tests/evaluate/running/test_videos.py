from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from lmconv.errors import InputError
from lmconv.running.inputs import Item, camera
from lmconv.running.videos import read_frames, video_writer


def clip(frames: int) -> Path:
    path = Path("clip.mp4")
    with video_writer(path, (48, 64), 25) as writer:
        for index in range(frames):
            writer.write(np.full((48, 64, 3), index, np.uint8))
    return path


def test_a_video_ends_after_its_last_frame() -> None:
    item = Item(kind="video", source=clip(5), label="clip.mp4", name="clip")
    assert len(list(read_frames(item, cv2.VideoCapture("clip.mp4")))) == 5


def test_a_camera_that_ends_is_an_error() -> None:
    frames = read_frames(camera(0), cv2.VideoCapture(str(clip(5))))
    for _ in range(5):
        assert next(frames).shape == (48, 64, 3)
    with pytest.raises(InputError, match="camera 0 stops after 5 frames"):
        next(frames)
