"""The 98 landmarks of WFLW.

Wu et al., "Look at Boundary: A Boundary-Aware Face Alignment Algorithm", CVPR 2018. Mirror (WFLW in
`lib/utils/transforms.py`) and normaliser (`lib/core/evaluation.py`) come from
https://github.com/HRNet/HRNet-Facial-Landmark-Detection; `configs/_base_/datasets/wflw.py` in
https://github.com/open-mmlab/mmpose has the same mirror.
"""

from __future__ import annotations

from lmconv.scheme import Group, Normaliser, Scheme

plugin = Scheme(
    name="wflw98",
    summary="WFLW 98",
    landmarks=98,
    mirror=(
        *range(32, -1, -1),  # jaw
        *(46, 45, 44, 43, 42, 50, 49, 48, 47),  # right brow
        *(37, 36, 35, 34, 33, 41, 40, 39, 38),  # left brow
        *(51, 52, 53, 54, 59, 58, 57, 56, 55),  # nose
        *(72, 71, 70, 69, 68, 75, 74, 73),  # right eye
        *(64, 63, 62, 61, 60, 67, 66, 65),  # left eye
        *(82, 81, 80, 79, 78, 77, 76, 87, 86, 85, 84, 83),  # outer lips
        *(92, 91, 90, 89, 88, 95, 94, 93),  # inner lips
        *(97, 96),  # pupils
    ),
    normalisers={
        "inter-ocular": Normaliser(rule=(60, 72), measure="distance of the outer eye corners"),
        "inter-pupil": Normaliser(rule=(96, 97), measure="distance of the pupils"),
    },
    groups={
        "jaw": Group(points=tuple(range(33))),
        "right brow": Group(points=tuple(range(33, 42)), closed=True),
        "left brow": Group(points=tuple(range(42, 51)), closed=True),
        "bridge of the nose": Group(points=tuple(range(51, 55))),
        "base of the nose": Group(points=tuple(range(55, 60))),
        "right eye": Group(points=tuple(range(60, 68)), closed=True),
        "left eye": Group(points=tuple(range(68, 76)), closed=True),
        "outer lips": Group(points=tuple(range(76, 88)), closed=True),
        "inner lips": Group(points=tuple(range(88, 96)), closed=True),
        "right pupil": Group(points=(96,)),
        "left pupil": Group(points=(97,)),
    },
    source="https://wywu.github.io/projects/LAB/WFLW.html",
)
