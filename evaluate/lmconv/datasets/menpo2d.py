"""Menpo 2D: `semifrontal` with 68 points and `profile` with 39 points, each in `trainset` and `testset`.

Beside each picture is a `.pts` file of the same name, which states its number of points. The training set of 2017 is
one folder, `menpo_train_release`, with faces of both kinds. A network is evaluated on the faces with its number of
points. Coordinates stay as stored: in a `.pts` file the first pixel is (1, 1).

Zafeiriou et al., "The Menpo Facial Landmark Localisation Challenge", CVPRW 2017; the numbers of faces come from
https://github.com/jiankangdeng/MenpoBenchmark and from this paper.
"""

from __future__ import annotations

from pathlib import Path

from lmconv.data import Dataset, Listing
from lmconv.errors import InputError
from lmconv.faces.layouts import Layout

KINDS = {"semifrontal": 68, "profile": 39}
TEST = tuple(name for kind in KINDS for name in (f"{kind}/testset", f"testset/{kind}"))
TRAIN = (*(name for kind in KINDS for name in (f"{kind}/trainset", f"trainset/{kind}")), "menpo_train_release")
FACES = {"semifrontal/testset": 5335, "profile/testset": 1946, "semifrontal/trainset": 5658, "profile/trainset": 1906}

LAYOUT = Layout(
    title="Menpo 2D",
    splits={"test": TEST, "train": TRAIN, "all": (*TEST, *TRAIN)},
    totals=FACES | {"/".join(reversed(part.split("/"))): count for part, count in FACES.items()},
)


def _faces(folder: Path, split: str) -> Listing:
    listing = LAYOUT.faces(folder, split)
    for face in listing.faces:
        allowed = {count for kind, count in KINDS.items() if kind in face.subsets[-1]} or set(KINDS.values())
        if len(face.points) not in allowed:
            expected = " or ".join(map(str, sorted(allowed)))
            message = f"{face.annotation}: {len(face.points)} points, expected {expected}"
            raise InputError(message, hint="restore the file, or remove the file and its picture")
    return listing


plugin = Dataset(
    name="menpo2d",
    summary="Menpo 2D: semifrontal and profile, each with trainset and testset, or menpo_train_release",
    matches=LAYOUT.matches,
    faces=_faces,
)
