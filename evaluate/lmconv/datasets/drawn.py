"""Faces that `lmconv draw` drew: `drawn/{testset,trainset}`, laid out as 300-W is, with 68 or 98 points.

A drawn face is no photograph: its figures stand under the names of these folders, never under those of 300-W.
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
