"""The 106 landmarks of JD-landmark; LaPa uses the same numbering.

Liu et al., "Grand Challenge of 106-Point Facial Landmark Localization", ICMEW 2019, arXiv:1905.03469. The normaliser
comes from the second challenge (ICPR 2020): sqrt(width x height) of the box around the annotated landmarks. Mirror and
numbering come from LaPa in `configs/_base_/datasets/lapa.py` of https://github.com/open-mmlab/mmpose. Both fit the mean
face of LaPa in https://github.com/jhb86253817/PIPNet; PIPNet itself normalises by the outer eye corners, 66 and 79.
Not verified: whether the first challenge used the same box.
"""

from __future__ import annotations

from lmconv.scheme import BOXES, Group, Normaliser, Scheme

plugin = Scheme(
    name="jd106",
    summary="JD-landmark 106, also LaPa",
    landmarks=106,
    mirror=(
        *range(32, -1, -1),  # jaw
        *(46, 45, 44, 43, 42, 50, 49, 48, 47),  # right brow
        *(37, 36, 35, 34, 33, 41, 40, 39, 38),  # left brow
        *(51, 52, 53, 54),  # bridge of the nose
        *range(65, 54, -1),  # sides and base of the nose
        *(79, 78, 77, 76, 75, 82, 81, 80, 83),  # right eye
        *(70, 69, 68, 67, 66, 73, 72, 71, 74),  # left eye
        *(90, 89, 88, 87, 86, 85, 84, 95, 94, 93, 92, 91),  # outer lips
        *(100, 99, 98, 97, 96, 103, 102, 101),  # inner lips
        *(105, 104),  # pupils
    ),
    normalisers={
        "box-side": BOXES["box-side"],
        "inter-ocular": Normaliser(rule=(66, 79), measure="distance of the outer eye corners"),
        "inter-pupil": Normaliser(rule=(104, 105), measure="distance of the pupils"),
    },
    groups={
        "jaw": Group(points=tuple(range(33))),
        "right brow": Group(points=tuple(range(33, 42)), closed=True),
        "left brow": Group(points=tuple(range(42, 51)), closed=True),
        "bridge of the nose": Group(points=tuple(range(51, 55))),
        "sides and base of the nose": Group(points=tuple(range(55, 66))),
        "right eye": Group(points=tuple(range(66, 74)), closed=True),
        "centre of the right eye": Group(points=(74,)),
        "left eye": Group(points=tuple(range(75, 83)), closed=True),
        "centre of the left eye": Group(points=(83,)),
        "outer lips": Group(points=tuple(range(84, 96)), closed=True),
        "inner lips": Group(points=tuple(range(96, 104)), closed=True),
        "right pupil": Group(points=(104,)),
        "left pupil": Group(points=(105,)),
    },
    source="https://fllc-icpr2020.github.io/evaluation/",
)
