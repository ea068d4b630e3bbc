"""Builds TensorRT engines from ONNX files whose tensors say what everything computes in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmconv.trt import device, graph, log
from lmconv.trt import engine as engines
from lmconv.trt.faults import Fault

if TYPE_CHECKING:
    import tensorrt as trt

WORKSPACE = 2 << 30
"""Bytes of device memory that the builder may use for scratch, unless told otherwise."""
LEVEL = 3
"""How hard the builder looks for fast kernels, 0 to 5: TensorRT's own choice."""


@dataclass(frozen=True)
class Options:
    """How an engine is built.

    Attributes:
        profile: Smallest, best and largest batch of a graph whose batch is free; None where it is fixed.
        workspace: Bytes of device memory for scratch.
        level: TensorRT's `builder_optimization_level`, 0 to 5.
        cache: A timing cache to begin with.
        version_compatible: Whether newer TensorRT may run it.
        hardware_compatible: Whether other GPUs may, from compute capability 8.0 on.
    """

    profile: tuple[int, int, int] | None = None
    workspace: int = WORKSPACE
    level: int = LEVEL
    cache: bytes | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False


@dataclass(frozen=True)
class Plan:
    """What came of it.

    Attributes:
        engine: The serialised engine.
        cache: The timing cache after the build.
        seconds: How long it took.
        layers: Number of layers of the engine.
        memory: Device bytes of one context.
        warnings: What TensorRT warned of.
    """

    engine: bytes
    cache: bytes
    seconds: float
    layers: int
    memory: int
    warnings: tuple[str, ...]


def build(onnx: bytes, options: Options) -> Plan:
    """Builds an engine on this machine's GPU.

    Args:
        onnx: The file's content.
        options: See there.

    Raises:
        Fault: Of kind device; of kind build, with the ONNX nodes concerned; of kind memory or load.
    """
    device.ready()
    import tensorrt as trt

    start = time.perf_counter()
    try:
        nodes = graph.nodes(onnx)
    except ValueError as error:
        raise Fault("build", str(error), "copy it again, or export it again") from error
    with log.heard() as said, device.calls("building the engine", "build", options.workspace):
        try:
            builder = trt.Builder(log.logger())
        except TypeError as error:  # how pybind11 says that there is none
            raise Fault("device", f"TensorRT makes no builder: {said.reason}", "see its log with -v") from error
        network = builder.create_network(_network_flags())
        # The parser refers to the network's weights until the engine is built.
        parser = _parse(onnx, network, nodes)
        config = _config(builder, options)
        if _major() < 10:
            _permit(network, config, onnx, nodes)
        _add_profile(builder, network, config, options.profile)
        serialised = builder.build_serialized_network(network, config)
        if serialised is None:
            raise _not_built(said, nodes, options)
        plan, cache = bytes(serialised), bytes(config.get_timing_cache().serialize())
        del parser, serialised, config, network, builder
    runtime, engine = engines.load(plan)
    layers, memory = int(engine.num_layers), engines.memory(engine)
    del engine, runtime
    seconds = time.perf_counter() - start
    return Plan(plan, cache, round(seconds, 3), layers, memory, tuple(dict.fromkeys(said.warnings)))


def _major() -> int:
    import tensorrt as trt

    return int(trt.__version__.split(".")[0])


def _network_flags() -> int:
    """8 has to be told that the batch is an axis as others; from 10 on it always is, and types are those of tensors."""
    import tensorrt as trt

    if _major() < 10:
        return 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)  # trt: 8
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # trt: 10, 11


def _parse(onnx: bytes, network: trt.INetworkDefinition, nodes: Sequence[graph.Node]) -> trt.OnnxParser:
    """Fills a network; gives the parser.

    Raises:
        Fault: Of kind build, with the nodes that TensorRT cannot parse.
    """
    import tensorrt as trt

    parser = trt.OnnxParser(network, log.logger())
    if parser.parse(onnx):
        return parser
    reasons, guilty = [], []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        place = error.node()
        node = nodes[place] if 0 <= place < len(nodes) else None
        where = f"node {node.label} ({node.operator}): " if node else ""
        reasons.append(where + " ".join(error.desc().split()))
        guilty += [node.label] if node else []
    said = "; ".join(dict.fromkeys(reasons)) or "it does not say why"
    message = f"TensorRT {trt.__version__} cannot parse the graph: {said}"
    raise Fault("build", message, "use another target, or export the network with other operators", guilty)


def _config(builder: trt.Builder, options: Options) -> trt.IBuilderConfig:
    """How to build.

    Raises:
        Fault: Of kind build: the timing cache is another machine's, or none at all.
    """
    import tensorrt as trt

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    config.builder_optimization_level = options.level
    config.clear_flag(trt.BuilderFlag.TF32)
    # Those that all versions have: so all choose from the same, and none needs cuBLAS or cuDNN.
    sources = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
    config.set_tactic_sources(sum(1 << int(source) for source in sources))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.version_compatible:
        # The lean runtime goes into the plan (no EXCLUDE_LEAN_RUNTIME): a file more to ship would be a file to lose.
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    cache = config.create_timing_cache(options.cache or b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise Fault("build", "the timing cache is not of this GPU and TensorRT", "name another with --timing-cache")
    return config


def _permit(
    network: trt.INetworkDefinition, config: trt.IBuilderConfig, onnx: bytes, nodes: Sequence[graph.Node]
) -> None:
    """Permits what the graph holds, and no more: 8 is weakly typed.

    Without Q/DQ the flag of int8 would ask for a calibrator; where there are Q/DQ, they say what is int8, and holding
    the operators between them to float32 would undo them.
    """
    import tensorrt as trt

    half, quantised = graph.holds_float16(onnx), graph.is_quantised(nodes)
    if half:
        config.set_flag(trt.BuilderFlag.FP16)  # trt: 8
    if quantised:
        config.set_flag(trt.BuilderFlag.INT8)  # trt: 8
    if half and not quantised:
        _hold_float32(network, config, graph.float32_nodes(onnx), nodes)


def _hold_float32(
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    exact: Sequence[graph.Node],
    nodes: Sequence[graph.Node],
) -> None:
    """Holds to float32 what the graph computes in float32: where float16 is permitted, 8 may use it anywhere.

    A layer that the parser added by itself (a shuffle for broadcasting, say) is held where it reads what is held. One
    that gives no float (a shape, an index) is left alone: a precision is refused there.
    """
    import tensorrt as trt

    names, held = [node.layer for node in nodes], {node.layer for node in exact}
    tensors: set[str] = set()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        outputs = [layer.get_output(place) for place in range(layer.num_outputs)]
        inputs = [layer.get_input(place) for place in range(layer.num_inputs)]
        node = graph.owner(layer.name, layer.metadata, names)
        exact_here = node in held if node else any(tensor and tensor.name in tensors for tensor in inputs)
        if not exact_here or layer.type == trt.LayerType.CAST:  # at a cast the island ends
            continue
        floats = [place for place, tensor in enumerate(outputs) if tensor.dtype == trt.float32]
        if not floats:
            continue
        tensors.update(tensor.name for tensor in outputs)
        layer.precision = trt.float32  # trt: 8
        for place in floats:
            layer.set_output_type(place, trt.float32)  # trt: 8
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)  # trt: 8


def _add_profile(
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    profile: tuple[int, int, int] | None,
) -> None:
    """Says which batches there will be.

    Raises:
        Fault: Of kind build: none are named, or another axis is free.
    """
    free = []
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = engines.sizes(tensor.shape)
        if any(size < 0 for size in shape[1:]):
            raise Fault("build", f"an axis of {tensor.name} is free that is not its batch", "use another target")
        if shape and shape[0] < 0:
            free.append((tensor.name, shape[1:]))
    if not free:
        return
    if profile is None:
        raise Fault("build", "the graph takes any batch, and no profile is named", "use --batch, such as 1:8:64")
    shapes = builder.create_optimization_profile()
    for name, rest in free:
        wanted: list[Any] = [(batch, *rest) for batch in profile]
        shapes.set_shape(name, *wanted)
    config.add_optimization_profile(shapes)


def _not_built(said: log.Said, nodes: Sequence[graph.Node], options: Options) -> Fault:
    """Why there is no engine, as far as the log tells."""
    import tensorrt as trt

    text = " ".join(said.errors)
    guilty = graph.named(text, [name for node in nodes for name in (node.name, *node.outputs)])
    if "out of memory" in text.lower() or "insufficient memory" in text.lower():
        hint = "name a larger --workspace, a smaller --batch, or end what else uses the GPU"
        return Fault(
            "memory", f"TensorRT {trt.__version__} has no room to build the engine: {said.reason}", hint, guilty
        )
    where = f" at {', '.join(guilty[:3])}" if guilty else ""
    message = f"TensorRT {trt.__version__} cannot build the engine{where}: {said.reason}"
    hint = "use another target" if options.workspace >= WORKSPACE else "try a larger --workspace, or another target"
    return Fault("build", message, hint, guilty)
