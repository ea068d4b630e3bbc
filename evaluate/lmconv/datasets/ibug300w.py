"""300-W as iBUG distributes it: `afw`, `helen/{testset,trainset}`, `ibug`, `lfpw/{testset,trainset}`, or any of them.

Each folder holds pictures and, beside each, a `.pts` file of the same name with 68 points. Coordinates stay as stored:
the first pixel is (1, 1) there, but the published networks were trained and judged without subtracting it.

https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/
"""

from __future__ import annotations

from lmconv.data import Dataset
from lmconv.layouts import Layout

TEST = ("helen/testset", "ibug", "lfpw/testset")
TRAIN = ("afw", "helen/trainset", "lfpw/trainset")

LAYOUT = Layout(
    title="300-W",
    splits={"test": TEST, "train": TRAIN, "all": (*TEST, *TRAIN)},
    landmarks=68,
    subsets={"helen/testset": "common", "lfpw/testset": "common", "ibug": "challenge"},
    totals={
        "common": 554,
        "challenge": 135,
        "full": 689,
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
    summary="300-W: afw, helen, ibug, lfpw with 68-point .pts files, or one folder of such pictures",
    matches=LAYOUT.matches,
    matches_bare=LAYOUT.matches_bare,
    faces=LAYOUT.faces,
)
