"""Crops and normalisation inside the graph: nodes in front of a network and behind its landmarks.

`image_nodes` computes the same as `lmconv.networks.preprocess.network_input`. `frame_nodes` first computes the same as
`lmconv.networks.squares`: the square around each box, black beyond the border, resized as OpenCV resizes uint8 with
INTER_LINEAR (modules/imgproc/src/resize.cpp: weights of 11 bits, sums truncated), value for value.

Coordinates are whole numbers in float32, exact below 2^24: OpenVINO's CPU plug-in has no float64, and its division of
integers leaves a fraction. Indices of pixels in the frame may be larger: they are int64, and only added and multiplied.
"""

from __future__ import annotations

import numpy as np

from lmconv.graph.facts import Part, parse_nodes
from lmconv.networks.squares import scaled
from lmconv.networks.units import pixels_per_unit
from lmconv.types import ModelSpec, Preprocess

IMAGE = """
    pixels = Cast <to = 1> (image)
"""

FINITE = """
    nothing = Sub (boxes, boxes)
    finite = Equal (nothing, ZERO_REAL)
    known = Where (finite, boxes, ZERO_REAL)
    unknown = ReduceSum <keepdims = 1> (nothing, ONE)
"""
"""A coordinate minus itself is 0, or NaN if the coordinate is NaN or infinite.

`known` replaces such a coordinate by 0, because a runtime may refuse to read a place in the frame that is not finite;
`unknown` (N, 1) makes the landmarks of such a box NaN."""

SQUARE = """
    first_corner = Slice (known, ZERO, TWO, ONE)
    last_corner = Slice (known, TWO, FOUR, ONE)
    first = Floor (first_corner)
    last = Ceil (last_corner)
    steps = Sub (last, first)
    extent = Add (steps, ONE_REAL)
    chosen = SIDE_OF <keepdims = 1> (extent, ONE)
    at_least = Max (chosen, ZERO_REAL)
    at_most = Min (at_least, LARGEST)
    entry = Cast <to = 7> (at_most)
    side = Gather <axis = 0> (SIDES, entry)
    halves_of_extent = Mul (extent, HALF)
    half_extent = Floor (halves_of_extent)
    halves_of_side = Mul (side, HALF)
    half_side = Floor (halves_of_side)
    middle = Add (first, half_extent)
    corner = Sub (middle, half_side)
    x_start = Slice (corner, ZERO, ONE, ONE)
    y_start = Slice (corner, ONE, TWO, ONE)
    end = Sub (side, ONE_REAL)
"""
"""`side` (N, 1) and `corner` (N, 2), whole numbers; see `lmconv.networks.squares.around`.

The side comes from a table: Python truncates a product in float64, 200 * 1.15 to 229, and no arithmetic in float32
gives the same result for every scale. A box with negative width or height gets a square of one pixel."""

ALONG_X = """
    x_parts = Mul (side, ODD_WIDTH)
    x_offset = Sub (x_parts, WIDTH)
    x_quotient = Div (x_offset, TWICE_WIDTH)
    x_whole = Floor (x_quotient)
    x_taken = Mul (x_whole, TWICE_WIDTH)
    x_rest = Sub (x_offset, x_taken)
    x_share = Div (x_rest, TWICE_WIDTH)
    x_anywhere = Add (x_whole, x_share)
    x_from_start = Max (x_anywhere, ZERO_REAL)
    x_at = Min (x_from_start, end)
    x_low = Floor (x_at)
    x_fraction = Sub (x_at, x_low)
    x_after = Add (x_low, ONE_REAL)
    x_high = Min (x_after, end)
    x_taps = Concat <axis = 1> (x_low, x_high)
"""

ALONG_Y = """
    y_parts = Mul (side, ODD_HEIGHT)
    y_offset = Sub (y_parts, HEIGHT)
    y_quotient = Div (y_offset, TWICE_HEIGHT)
    y_whole = Floor (y_quotient)
    y_taken = Mul (y_whole, TWICE_HEIGHT)
    y_rest = Sub (y_offset, y_taken)
    y_share = Div (y_rest, TWICE_HEIGHT)
    y_at = Add (y_whole, y_share)
    y_low = Floor (y_at)
    y_fraction = Sub (y_at, y_low)
    y_after = Add (y_low, ONE_REAL)
    y_pair = Concat <axis = 1> (y_low, y_after)
    y_inside = Max (y_pair, ZERO_REAL)
    y_taps = Min (y_inside, end)
"""
"""Two taps (N, 2h) within the square for each row, and the distance of the row from the first tap.

At the borders of the square OpenCV repeats a row, but reads a single column: the sums are equal, the truncation is
different. Quotient and remainder are divided separately, because OpenVINO multiplies by the
reciprocal; their sum is rounded to float32, as in OpenCV."""

IN_FRAME = """
    AXIS_sharp = Mul (AXIS_fraction, UNITS)
    AXIS_second = Round (AXIS_sharp)
    AXIS_first = Sub (UNITS, AXIS_second)
    AXIS_weights = Concat <axis = 1> (AXIS_first, AXIS_second)
    AXIS_place = Add (AXIS_taps, AXIS_start)
    AXIS_size = Cast <to = 1> (AXIS_count)
    AXIS_last = Sub (AXIS_size, ONE_REAL)
    AXIS_not_before = Max (AXIS_place, ZERO_REAL)
    AXIS_within = Min (AXIS_not_before, AXIS_last)
    AXIS_read = Cast <to = 7> (AXIS_within)
    AXIS_there = Equal (AXIS_place, AXIS_within)
    AXIS_there_real = Cast <to = 1> (AXIS_there)
    AXIS_factors = Mul (AXIS_weights, AXIS_there_real)
"""
"""Index of each pixel to read, and its weight in 2048ths: 0 where the square reaches beyond the frame."""

FRAME_SIZE = """
    shape = Shape (frame)
    y_count = Slice (shape, ZERO, ONE)
    x_count = Slice (shape, ONE, TWO)
"""

SAMPLE = """
    colours = Reshape (frame, FLAT_PIXELS)
    row_starts = Mul (y_read, x_count)
    rows = Unsqueeze (row_starts, TWO)
    columns = Unsqueeze (x_read, ONE)
    places = Add (rows, columns)
    bytes = Gather <axis = 0> (colours, places)
    flat_bytes = Reshape (bytes, FLAT_ROWS)
    taps = Cast <to = 1> (flat_bytes)
    x_columns = Unsqueeze (x_factors, X_AXES)
    x_thrice = Mul (x_columns, THREE_ONES)
    x_flat = Reshape (x_thrice, FLAT_ROW)
    x_products = Mul (taps, x_flat)
    x_products_low, x_products_high = Split <axis = 2> (x_products, WIDTHS)
    x_sums = Add (x_products_low, x_products_high)
    x_sixteenths = Mul (x_sums, ONE_16TH)
    x_cut = Floor (x_sixteenths)
    y_rows = Unsqueeze (y_factors, TWO)
    y_parts_of_1 = Mul (y_rows, ONE_65536TH)
    y_products = Mul (x_cut, y_parts_of_1)
    y_cut = Floor (y_products)
    y_cut_low, y_cut_high = Split <axis = 1> (y_cut, HEIGHTS)
    y_sums = Add (y_cut_low, y_cut_high)
    y_rounded = Add (y_sums, TWO_REAL)
    y_quarters = Mul (y_rounded, QUARTER)
    values = Floor (y_quarters)
    pixels = Reshape (values, CROPS)
"""
"""One Gather for all boxes: it reads four pixels of the frame per pixel of the crops, for a frame of any size.

Rows are (N, 2h, 6w), so that the innermost axis is long."""

NORMALISE = """
    planes = Transpose <perm = [0, 3, 1, 2]> (pixels)
"""
"""`_normalise` appends `(pixel * SCALE - MEAN) / STD`, as far as the network needs each step."""

TO_FRAME = """
    sides = Unsqueeze (side, ONE)
    place = Add (corner, unknown)
    corners = CORNERS
    from_corner = Mul (fractions, sides)
    landmarks = Add (from_corner, corners)
"""

LARGEST_BOX = 1 << 14
"""Largest side of a box, pixels; a larger box is cut as if its side had this length."""
POINTS = "network_landmarks"
"""Name of the network's own landmarks after the prefix, in a graph that converts them."""


def image_nodes(spec: ModelSpec, prefix: str) -> Part:
    """Returns the nodes from `image` (N, h, w, 3) uint8 to `input` (N, 3, h, w) float32.

    Args:
        spec: Spec of the network.
        prefix: Start of the names of all other values.
    """
    body, constants = _normalise(spec.preprocess)
    return parse_nodes(IMAGE + body, constants, {"image": "image", "input": "input"}, prefix)


def frame_nodes(spec: ModelSpec, prefix: str) -> Part:
    """Returns the nodes from `frame` (H, W, 3) uint8 and `boxes` (N, 4) float32 to `input` (N, 3, h, w) float32.

    Args:
        spec: Spec of the network. Its crop is around boxes of landmarks.
        prefix: Start of the names of all other values.
    """
    height, width = spec.input_size
    normalise, constants = _normalise(spec.preprocess)
    constants |= {
        "ZERO": [0], "ONE": [1], "TWO": [2], "FOUR": [4], "X_AXES": [1, 3], "FLAT_PIXELS": [-1, 3],
        "FLAT_ROWS": [-1, 2 * height, 6 * width], "FLAT_ROW": [-1, 1, 6 * width], "CROPS": [-1, height, width, 3],
        "WIDTHS": [3 * width, 3 * width], "HEIGHTS": [height, height], "THREE_ONES": [1.0, 1.0, 1.0],
        "ZERO_REAL": [0.0], "ONE_REAL": [1.0], "TWO_REAL": [2.0], "HALF": [0.5], "QUARTER": [0.25], "UNITS": [2048.0],
        "ONE_16TH": [2.0**-4], "ONE_65536TH": [2.0**-16],
        "LARGEST": [float(LARGEST_BOX)],
        "SIDES": [float(max(1, scaled(pixels, spec.crop))) for pixels in range(LARGEST_BOX + 1)],
        "ODD_WIDTH": 2.0 * np.arange(width) + 1, "WIDTH": [float(width)], "TWICE_WIDTH": [2.0 * width],
        "ODD_HEIGHT": 2.0 * np.arange(height) + 1, "HEIGHT": [float(height)], "TWICE_HEIGHT": [2.0 * height],
    }  # fmt: skip
    square = SQUARE.replace("SIDE_OF", "ReduceMax" if spec.crop.side == "max" else "ReduceMin")
    inside = IN_FRAME.replace("AXIS", "x") + IN_FRAME.replace("AXIS", "y")
    body = FINITE + square + ALONG_X + ALONG_Y + FRAME_SIZE + inside + SAMPLE + normalise
    return parse_nodes(body, constants, {"frame": "frame", "boxes": "boxes", "input": "input"}, prefix)


def _normalise(preprocess: Preprocess) -> tuple[str, dict[str, object]]:
    """Returns the steps of `network_input`, in the same order, without a scale of 1, mean of 0 and deviation of 1."""
    mean, std = (np.array(value, np.float32).reshape(3, 1, 1) for value in (preprocess.mean, preprocess.std))
    steps = [
        *([("Mul", "SCALE")] if preprocess.scale != 1 else []),
        *([("Sub", "MEAN")] if mean.any() else []),
        *([("Div", "STD")] if (std != 1).any() else []),
    ]
    values = [*["planes", *(f"normal_{index}" for index in range(1, len(steps)))][: len(steps)], "input"]
    lines = [f"{values[index + 1]} = {kind} ({values[index]}, {name})" for index, (kind, name) in enumerate(steps)]
    return NORMALISE.replace("planes", values[0]) + "\n".join(lines), {
        "SCALE": float(preprocess.scale),
        "MEAN": mean,
        "STD": std,
    }


def to_crop_pixels(spec: ModelSpec, prefix: str) -> Part:
    """Returns the nodes from the network's landmarks, no pixels, to `landmarks` in pixels of the crop."""
    factors, offsets = pixels_per_unit(spec.decode, spec.input_size, _coordinates(spec))
    body = "landmarks = Mul (points, SIZE)"
    if offsets.any():
        body = "scaled = Mul (points, SIZE) landmarks = Add (scaled, CENTRE)"
    return parse_nodes(body, {"SIZE": factors, "CENTRE": offsets}, _landmark_names(prefix), prefix)


def to_frame_pixels(spec: ModelSpec, prefix: str) -> Part:
    """Returns the nodes from the network's landmarks to `landmarks` in pixels of the frame, by the unclipped square."""
    count = _coordinates(spec)
    sides, halves = pixels_per_unit("fraction", spec.input_size, count)[0], np.array((0.5, 0.5, 0)[:count], np.float32)
    fractions = {
        "fraction": "fractions = Identity (points)",
        "pixels": "fractions = Div (points, SIZE)",
        "[-1,1]": "halves = Mul (points, HALF) fractions = Add (halves, CENTRE)",
    }[spec.decode]
    # A third coordinate has no origin.
    corners = "Unsqueeze (place, ONE)" if count == 2 else "Pad (plane_corners, PADS)"
    plane = "" if count == 2 else "plane_corners = Unsqueeze (place, ONE)"
    body = fractions + TO_FRAME.replace("corners = CORNERS", f"{plane}\n    corners = {corners}")
    constants = {"SIZE": sides, "ONE": [1], "HALF": 0.5, "CENTRE": halves, "PADS": [0, 0, 0, 0, 0, 1]}
    return parse_nodes(body, constants, _landmark_names(prefix), prefix)


def _coordinates(spec: ModelSpec) -> int:
    return int(spec.outputs[0].shape[-1])


def _landmark_names(prefix: str) -> dict[str, str]:
    return {"points": f"{prefix}_{POINTS}", "landmarks": "landmarks"}
