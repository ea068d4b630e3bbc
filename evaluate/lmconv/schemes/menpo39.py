"""The 39 points of Menpo's profile faces, one numbering for both sides.

Deng et al., "The Menpo Benchmark for Multi-pose 2D and 3D Facial Landmark Localisation and Tracking", IJCV 2019. The
normaliser is that of `Evaluation/Menpo2D/util/compute_diag_error.m` in https://github.com/jiankangdeng/MenpoBenchmark.

What each point is, and that a face that looks left has the same numbers as one that looks right, is how
`model_training/pdm_generation/menpo_pdm/Collect_menpo_annotations.m` of https://github.com/TadasBaltrusaitis/OpenFace
reads the files: it tells the sides apart by the turn of the outline alone. So a mirrored face keeps its numbers. Not
verified: that the benchmark's authors say so; and OpenFace drops points 10 and 11, which go on from the chin.
"""

from __future__ import annotations

from lmconv.scheme import BOXES, Group, Scheme

plugin = Scheme(
    name="menpo39",
    summary="Menpo profile 39, left and right",
    landmarks=39,
    mirror=tuple(range(39)),
    normalisers={"box-diagonal": BOXES["box-diagonal"]},
    groups={
        "jaw": Group(points=tuple(range(12))),
        "brow": Group(points=tuple(range(12, 16))),
        "bridge of the nose": Group(points=tuple(range(16, 20))),
        "base of the nose": Group(points=(20, 21)),
        "eye": Group(points=tuple(range(22, 27))),
        "outer lips": Group(points=tuple(range(27, 34))),
        "inner lips": Group(points=tuple(range(34, 39))),
    },
    source="https://ibug.doc.ic.ac.uk/resources/2nd-facial-landmark-tracking-competition-menpo-ben/",
)
