"""The 39 landmarks of Menpo's profile faces, with one numbering for both sides.

Deng et al., "The Menpo Benchmark for Multi-pose 2D and 3D Facial Landmark Localisation and Tracking", IJCV 2019. The
normaliser comes from `Evaluation/Menpo2D/util/compute_diag_error.m` in
https://github.com/jiankangdeng/MenpoBenchmark.

The meaning of each number comes from the reader
`model_training/pdm_generation/menpo_pdm/Collect_menpo_annotations.m` of https://github.com/TadasBaltrusaitis/OpenFace.
The reader uses the same numbers for faces that look left and for faces that look right, and distinguishes the sides by
the direction of the outline alone. A mirrored face therefore keeps its numbers. Not verified: whether the benchmark's
authors use the same numbers. OpenFace drops landmarks 10 and 11, which continue the outline from the chin.
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
