"""300-W in the layout of iBUG: `afw`, `helen/{testset,trainset}`, `ibug`, `lfpw/{testset,trainset}`, or some of them.

The 600 pictures of the challenge itself, `01_Indoor` and `02_Outdoor`, are test faces too, in the subset `private`.

Each folder holds pictures. Beside each picture is a `.pts` file of the same name with 68 points. Coordinates stay as
stored: the first pixel is (1, 1) in a `.pts` file, but the published networks were trained and evaluated without
subtracting 1.

https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/
"""

from __future__ import annotations

from lmconv.data import Dataset
from lmconv.faces.layouts import Layout

TEST = ("01_Indoor", "02_Outdoor", "helen/testset", "ibug", "lfpw/testset")
TRAIN = ("afw", "helen/trainset", "lfpw/trainset")

LAYOUT = Layout(
    title="300-W",
    splits={"test": TEST, "train": TRAIN, "all": (*TEST, *TRAIN)},
    landmarks=68,
    subsets={
        "01_Indoor": "private",
        "02_Outdoor": "private",
        "helen/testset": "common",
        "lfpw/testset": "common",
        "ibug": "challenge",
    },
    totals={
        "common": 554,
        "challenge": 135,
        "full": 689,
        "private": 600,
        "01_Indoor": 300,
        "02_Outdoor": 300,
        "afw": 337,
        "helen/testset": 330,
        "helen/trainset": 2000,
        "ibug": 135,
        "lfpw/testset": 224,
        "lfpw/trainset": 811,
    },
    bare=True,
)

plugin = Dataset(
    name="ibug300w",
    summary="300-W: afw, helen, ibug, lfpw, 01_Indoor, 02_Outdoor, or a folder of pictures with 68-point .pts files",
    matches=LAYOUT.matches,
    matches_bare=LAYOUT.matches_bare,
    faces=LAYOUT.faces,
)
