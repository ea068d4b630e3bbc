from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lmconv.networks.squares import Square, around
from lmconv.running.faces import Region
from lmconv.running.tracking import Tracks, match_boxes, track
from lmconv.types import Crop, Float64

SIZE = (480, 640)
CROP = Crop()


def face(x: float, y: float, side: float = 100) -> Float64:
    """(5, 2) float64: landmarks whose tight box is a square around (x, y), pixels."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [0, 0]])
    return np.array([x, y]) + side / 2 * corners


def region(x: float, y: float, side: float = 120) -> Region:
    box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    return Region(box=box, square=around(box, Crop(box="detector", scale=1.0)), score=0.9)


@dataclass
class World:
    """Simulated frames: the detector detects all faces; the network predicts the landmarks of the nearest face."""

    places: list[tuple[float, float]]
    side: float = 100
    looks: int = 0
    batches: list[int] = field(default_factory=list)
    blind: bool = False

    def detect(self) -> list[Region] | None:
        self.looks += 1
        return None if self.blind else [region(x, y) for x, y in self.places]

    def predict(self, squares: Sequence[Square]) -> Float64:
        self.batches.append(len(squares))
        points = [self._nearest(left + side / 2, top + side / 2) for left, top, side in squares]
        return np.array(points).reshape(-1, 5, 2)

    def _nearest(self, x: float, y: float) -> Float64:
        if not self.places:
            return face(x + 500, y)
        place = min(self.places, key=lambda place: abs(place[0] - x) + abs(place[1] - y))
        return face(*place, self.side)

    def step(self, tracks: Tracks, *, every: int = 5, follow: bool = True) -> Tracks:
        return track(tracks, self.detect, self.predict, size=SIZE, crop=CROP, every=every, follow=follow)


def numbers(tracks: Tracks) -> list[int | None]:
    return [tracked.track for tracked in tracks.faces]


def centres(tracks: Tracks) -> list[float]:
    return [float(tracked.landmarks[-1, 0]) for tracked in tracks.faces]


def test_the_detector_runs_on_the_first_frame_and_then_periodically() -> None:
    world, tracks, looks = World([(100, 100)]), Tracks(), []
    for _ in range(11):
        tracks = world.step(tracks)
        looks.append(world.looks)
    assert looks == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]
    assert numbers(tracks) == [0]


def test_moving_faces_keep_their_numbers() -> None:
    world, tracks = World([(100, 100), (400, 200)]), Tracks()
    for _ in range(20):
        world.places = [(x + 8, y + 3) for x, y in world.places]
        tracks = world.step(tracks)
        assert numbers(tracks) == [0, 1]
    assert centres(tracks) == [260, 560]
    assert set(world.batches) <= {0, 2}  # all faces in one call


def test_a_new_face_gets_a_new_number_when_the_detector_runs() -> None:
    world, tracks = World([(100, 100)]), Tracks()
    tracks = world.step(tracks)
    world.places.insert(0, (400, 200))
    seen = []
    for _ in range(5):
        tracks = world.step(tracks)
        seen.append(numbers(tracks))
    assert seen == [[0], [0], [0], [0], [0, 1]]
    assert centres(tracks) == [100, 400]


def test_a_face_that_jumps_is_lost_and_the_detector_runs_at_once() -> None:
    world = World([(100, 100)])
    tracks = world.step(Tracks())
    world.places = [(500, 300)]
    tracks = world.step(tracks)
    assert world.looks == 2
    assert (numbers(tracks), centres(tracks)) == ([1], [500])


def test_after_a_face_has_left_the_detector_runs_on_every_frame() -> None:
    world = World([(100, 100)])
    tracks = world.step(Tracks())
    world.places = []
    for _ in range(3):
        tracks = world.step(tracks)
        assert tracks.faces == ()
    assert world.looks == 4


def test_a_face_of_another_size_is_detected_again_and_keeps_its_number() -> None:
    world = World([(100, 100)])
    tracks = world.step(Tracks())
    world.side = 170
    tracks = world.step(tracks)
    assert world.looks == 2
    assert numbers(tracks) == [0]
    assert tracks.faces[0].region.score == 0.9


def test_a_face_that_grows_without_end_is_lost() -> None:
    world = World([(320, 240)])
    tracks = world.step(Tracks())
    world.blind = True
    for _ in range(12):
        world.side *= 1.4
        tracks = world.step(tracks)
    assert tracks.faces == ()


def test_a_face_that_the_detector_does_not_confirm_is_lost() -> None:
    world = World([(100, 100), (400, 200)])
    tracks = world.step(Tracks())
    detector = [region(400, 200)]
    for _ in range(5):
        tracks = track(tracks, lambda: detector, world.predict, size=SIZE, crop=CROP, every=5)
    assert numbers(tracks) == [1]


def test_a_face_that_drifted_gets_the_box_of_the_detector() -> None:
    world = World([(100, 100)])
    tracks = world.step(Tracks())
    world.side = 70
    for _ in range(5):
        tracks = world.step(tracks)
    assert numbers(tracks) == [0]
    assert tracks.faces[0].region.score == 0.9


def test_two_tracks_on_one_face_become_one_track() -> None:
    world = World([(100, 100), (180, 100)])
    tracks = world.step(Tracks())
    world.places = [(140, 100)]
    tracks = world.step(tracks)
    assert len(tracks.faces) == 1


def test_without_detections_tracked_faces_stay() -> None:
    world = World([(100, 100)])
    tracks = world.step(Tracks())
    world.blind = True
    for _ in range(12):
        tracks = world.step(tracks)
    assert numbers(tracks) == [0]


def test_without_tracking_faces_are_cropped_at_detections_and_keep_their_numbers() -> None:
    world, tracks = World([(100, 100), (400, 200)]), Tracks()
    for _ in range(5):
        world.places = [(x + 8, y) for x, y in reversed(world.places)]
        tracks = world.step(tracks, every=1, follow=False)
        assert {tracked.region.score for tracked in tracks.faces} == {0.9}
    assert world.looks == 5
    assert sorted(zip(numbers(tracks), centres(tracks), strict=True)) in ([(0, 140), (1, 440)], [(0, 440), (1, 140)])


def test_boxes_are_matched_in_order_of_overlap() -> None:
    boxes = [np.array([0.0, 0, 10, 10]), np.array([4.0, 0, 14, 10])]
    others = [np.array([5.0, 0, 15, 10]), np.array([30.0, 0, 40, 10])]
    assert match_boxes(boxes, others) == [(1, 0)]
    assert match_boxes(boxes, []) == []
