"""Synthetic faces from `lmconv draw`: `drawn/{testset,trainset}` in the layout of 300-W, with 68 or 98 points.

A drawn face is not a photograph. Its figures are reported under the names of these folders, never under the names of
300-W.
"""

from __future__ import annotations

from lmconv.data import Dataset
from lmconv.faces.layouts import Layout

TEST, TRAIN = "drawn/testset", "drawn/trainset"

LAYOUT = Layout(title="the drawn set", splits={"test": (TEST,), "train": (TRAIN,), "all": (TEST, TRAIN)})

plugin = Dataset(
    name="drawn",
    summary="drawn faces: drawn/testset and drawn/trainset, as `lmconv draw` writes them",
    matches=LAYOUT.matches,
    faces=LAYOUT.faces,
)
