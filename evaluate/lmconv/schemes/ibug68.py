"""The 68 landmarks of iBUG, based on Multi-PIE: 300-W, 300-VW, Menpo semi-frontal.

Numbering (figure 1, counted from 1) and normaliser: Sagonas et al., "300 Faces in-the-Wild Challenge: The First Facial
Landmark Localization Challenge", ICCVW 2013. Mirror: 300W in `lib/utils/transforms.py` of
https://github.com/HRNet/HRNet-Facial-Landmark-Detection.
"""

from __future__ import annotations

from lmconv.scheme import Group, Normaliser, Scheme, centres

plugin = Scheme(
    name="ibug68",
    summary="iBUG 68: 300-W, 300-VW, Menpo semi-frontal",
    landmarks=68,
    mirror=(
        *range(16, -1, -1),  # jaw
        *range(26, 16, -1),  # brows
        *(27, 28, 29, 30, 35, 34, 33, 32, 31),  # nose
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
        *(64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
    ),
    normalisers={
        "inter-ocular": Normaliser(rule=(36, 45), measure="distance of the outer eye corners"),
        "inter-pupil": Normaliser(
            rule=centres(range(36, 42), range(42, 48)), measure="distance of the centres of the eyes' points"
        ),
    },
    groups={
        "jaw": Group(points=tuple(range(17))),
        "right brow": Group(points=tuple(range(17, 22))),
        "left brow": Group(points=tuple(range(22, 27))),
        "bridge of the nose": Group(points=tuple(range(27, 31))),
        "base of the nose": Group(points=tuple(range(31, 36))),
        "right eye": Group(points=tuple(range(36, 42)), closed=True),
        "left eye": Group(points=tuple(range(42, 48)), closed=True),
        "outer lips": Group(points=tuple(range(48, 60)), closed=True),
        "inner lips": Group(points=tuple(range(60, 68)), closed=True),
    },
    source="https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/",
)
