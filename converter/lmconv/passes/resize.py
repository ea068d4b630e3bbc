"""Replaces a computed size of Resize by constant factors. Exact.

A size like (N, C, 2 H, 2 W) is computed from the input's shape because N is free, although only N changes. With
constant factors, a runtime knows the shape in advance and may keep its own layout. The nodes that compute the size
become unnecessary.
"""

from __future__ import annotations

import numpy as np
import onnx

from lmconv.graph.facts import static_shapes
from lmconv.graph.index import attribute
from lmconv.graph.rewriter import Rewriter, make
from lmconv.types import Json, Pass, PassContext


def resize(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Rewrites each Resize whose factors are integers, because factors and sizes then give the same result."""
    graph = Rewriter(model)
    nodes = graph.nodes("Resize")
    shapes = static_shapes(model) if nodes else {}
    changed = 0
    for node in nodes:
        before, after = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
        if not _has_computed_size(graph, node) or not _has_integer_factors(before, after):
            continue
        factors = np.array([new / old for old, new in zip(before, after, strict=True)], np.float32)
        scales = graph.constant(f"{node.output[0]}_scales", factors)
        options = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        graph.replace(node, make("Resize", [node.input[0], "", scales], node.output[0], **options))
        changed += 1
    graph.commit()
    return model, {"constant": changed}


def _has_computed_size(graph: Rewriter, node: onnx.NodeProto) -> bool:
    """True if a Resize has a computed size for all axes, no crop, and the default aspect-ratio policy."""
    computed = len(node.input) > 3 and node.input[3] not in graph.constants
    special = attribute(node, "axes", None) or attribute(node, "keep_aspect_ratio_policy", b"stretch") != b"stretch"
    return computed and not special and attribute(node, "coordinate_transformation_mode", b"") != b"tf_crop_and_resize"


def _has_integer_factors(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """True if batch and channels stay the same, and height and width are multiplied by integers."""
    if len(before) != 4 or len(after) != 4 or before[:2] != after[:2]:
        return False
    return all(new % old == 0 for old, new in zip(before[2:], after[2:], strict=True))


plugin = Pass(
    name="resize",
    summary="constant factors instead of sizes that are computed only because the batch is free",
    apply=resize,
    tolerance=1e-6,
)
