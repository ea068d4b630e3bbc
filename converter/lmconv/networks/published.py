"""Numbers of face landmarks that published schemes have, each with a publication."""

from __future__ import annotations

from collections.abc import Mapping

NUMBERS: Mapping[int, str] = {
    5: "MTCNN (Zhang et al. 2016, https://arxiv.org/abs/1604.02878)",
    6: "BlazeFace (Bazarevsky et al. 2019, https://arxiv.org/abs/1907.05047)",
    10: "LFW (Dantone et al. 2012, Real-time facial feature detection using conditional regression forests)",
    15: "Facial Keypoints Detection (Kaggle 2013)",
    19: "AFLW-Full (Zhu et al. 2016, Unconstrained face alignment via cascaded compositional learning)",
    20: "BioID with the FGnet markup (2003)",
    21: "AFLW (Koestinger et al. 2011, Annotated facial landmarks in the wild)",
    29: "COFW (Burgos-Artizzu et al. 2013, Robust face landmark estimation under occlusion)",
    35: "LFPW (Belhumeur et al. 2011, Localizing parts of faces using a consensus of exemplars)",
    39: "Menpo, profiles (Zafeiriou et al. 2017, The Menpo facial landmark localisation challenge)",
    49: "SDM (Xiong and De la Torre 2013, Supervised descent method and its applications to face alignment)",
    51: "300-W, inner points (Sagonas et al. 2013, 300 faces in-the-wild challenge)",
    58: "IMM (Nordstroem et al. 2004, The IMM face database)",
    66: "FaceTracker (Saragih et al. 2011, Deformable model fitting by regularized landmark mean-shift)",
    68: "300-W (Sagonas et al. 2013, 300 faces in-the-wild challenge)",
    70: "OpenPose, face (Cao et al. 2018, https://arxiv.org/abs/1812.08008)",
    76: "MUCT (Milborrow et al. 2010, The MUCT landmarked face database)",
    77: "Stasm 4 (Milborrow and Nicolls 2014, Active shape models with SIFT descriptors and MARS)",
    84: "3D Menpo (Zafeiriou et al. 2017, The 3D Menpo facial landmark tracking challenge)",
    98: "WFLW (Wu et al. 2018, https://arxiv.org/abs/1805.10483)",
    106: "JD-landmark (Liu et al. 2019, https://arxiv.org/abs/1905.03469)",
    194: "HELEN (Le et al. 2012, Interactive facial feature localization)",
    203: "LivePortrait (Guo et al. 2024, https://arxiv.org/abs/2407.03168)",
    468: "Face Mesh (Kartynnik et al. 2019, https://arxiv.org/abs/1907.06724)",
    478: "Attention Mesh (Grishchenko et al. 2020, https://arxiv.org/abs/2006.10962)",
    703: "Dense landmarks (Wood et al. 2022, https://arxiv.org/abs/2204.02776)",
}
"""Publication of a scheme, by its number of points. Without `--landmarks`, an output is read as points only if one of
these schemes has this number of points."""

THREE_DIMENSIONAL: Mapping[int, str] = {
    68: "AFLW2000-3D (Zhu et al. 2016, https://arxiv.org/abs/1511.07212)",
    84: NUMBERS[84],
    468: NUMBERS[468],
    478: NUMBERS[478],
}
"""Schemes published with three coordinates. A flat output is read as x, y and z only for one of these numbers."""
