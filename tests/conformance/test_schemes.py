"""Rules for every landmark scheme; a new plug-in file is tested automatically."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lmconv.scheme import BOXES, SCHEMES, Group, Scheme, scheme
from lmconv.types import Float64

NAMES = SCHEMES.names()


@pytest.fixture(params=NAMES)
def one(request: pytest.FixtureRequest) -> Scheme:
    return SCHEMES.load(request.param)


def faces(one: Scheme, n: int = 3) -> Float64:
    return np.random.default_rng(0).uniform(0, 200, (n, one.landmarks, 2))


def lines(group: Group) -> frozenset[frozenset[int]]:
    """Lines of a group: pairs of joined points; a single point is joined to itself."""
    joined = [*zip(group.points, group.points[1:], strict=False)]
    if group.closed or not joined:
        joined.append((group.points[-1], group.points[0]))
    return frozenset(map(frozenset, joined))


def test_a_scheme_has_a_name_a_summary_normalisers_and_a_source(one: Scheme) -> None:
    assert one.name in NAMES
    assert one.summary
    for normaliser in one.normalisers.values():
        assert normaliser.measure
        assert not normaliser.measure.startswith("the ")
    assert one.source.strip()


def test_the_number_of_points_identifies_a_scheme(one: Scheme) -> None:
    assert one.landmarks > 0
    assert scheme(one.landmarks) is one


def test_the_mirror_is_a_permutation_and_its_own_inverse(one: Scheme) -> None:
    assert sorted(one.mirror) == list(range(one.landmarks))
    assert [one.mirror[place] for place in one.mirror] == list(range(one.landmarks))


def test_a_normaliser_scales_with_the_face_and_ignores_mirroring(one: Scheme) -> None:
    assert one.normaliser() is one.normalisers[one.default]
    for name in {*one.normalisers, *BOXES}:
        chosen = one.normaliser(name)
        if not callable(chosen.rule):
            first, second = chosen.rule
            assert (one.mirror[first], one.mirror[second]) == (second, first)
        points = faces(one)
        sizes = chosen.sizes(points)
        assert sizes.shape == (3,)
        assert sizes.dtype == np.float64
        assert (sizes > 0).all()
        mirrored = (points * [-1, 1])[:, list(one.mirror)]
        np.testing.assert_allclose(chosen.sizes(mirrored), sizes, rtol=1e-12)
        np.testing.assert_allclose(chosen.sizes(7 * points + 30), 7 * sizes, rtol=1e-12)


def test_every_point_is_in_one_group(one: Scheme) -> None:
    counts = Counter(point for group in one.groups.values() for point in group.points)
    assert counts == Counter(range(one.landmarks))


def test_the_mirror_draws_the_same_lines(one: Scheme) -> None:
    drawn = {lines(group) for group in one.groups.values()}
    for group in one.groups.values():
        there = Group(points=tuple(one.mirror[point] for point in group.points), closed=group.closed)
        assert lines(there) in drawn


def test_left_mirrors_to_right(one: Scheme) -> None:
    for name, group in one.groups.items():
        if "left" in name.split():
            other = one.groups[name.replace("left", "right")]
            assert {one.mirror[point] for point in group.points} == set(other.points)
