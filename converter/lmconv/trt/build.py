"""Builds TensorRT engines from ONNX files. The tensor types of the graph define the precision of every operation."""

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
"""Default limit of the scratch memory that the builder may use on the device, in bytes."""
LEVEL = 3
"""Default `builder_optimization_level`, 0 to 5; a higher level searches longer for fast kernels.

3 is also TensorRT's own default.
"""


@dataclass(frozen=True)
class Options:
    """Options for building an engine.

    Attributes:
        profile: Minimum, optimum and maximum batch size of a graph with a free batch axis; None for a fixed batch.
        workspace: Limit of the scratch memory on the device, in bytes.
        level: TensorRT's `builder_optimization_level`, 0 to 5.
        cache: Content of the timing cache to start from; None starts with an empty cache.
        version_compatible: True if newer versions of TensorRT may run the engine.
        hardware_compatible: True if other GPUs of compute capability 8.0 or newer may run the engine.
    """

    profile: tuple[int, int, int] | None = None
    workspace: int = WORKSPACE
    level: int = LEVEL
    cache: bytes | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False


@dataclass(frozen=True)
class Plan:
    """Result of a build.

    Attributes:
        engine: The serialised engine.
        cache: Content of the timing cache after the build.
        seconds: Duration of the build.
        layers: Number of layers of the engine.
        memory: Device memory of one execution context, in bytes.
        warnings: Warnings that TensorRT logged, each text once.
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
        onnx: Content of the ONNX file.
        options: Build options.

    Returns:
        The engine, its timing cache and the figures of the build.

    Raises:
        Fault: Of kind "device" if the GPU or a package is missing; of kind "build" with the names of the failing ONNX
            nodes; of kind "memory" or "load".
    """
    device.ready()
    import tensorrt as trt

    start = time.perf_counter()
    try:
        nodes = graph.nodes(onnx)
    except ValueError as error:
        raise Fault("build", str(error), "copy the file again, or export again") from error
    with log.collect() as messages, device.translate_errors("building the engine", "build", options.workspace):
        try:
            builder = trt.Builder(log.logger())
        except TypeError as error:  # pybind11 raises a TypeError if TensorRT returns no builder
            reason = f"TensorRT cannot create a builder: {messages.reason}"
            raise Fault("device", reason, "-v shows TensorRT's log") from error
        network = builder.create_network(_network_flags())
        # The parser keeps references to the network's weights until the engine is built.
        parser = _parse(onnx, network, nodes)
        config = _config(builder, options)
        if _major() < 10:
            _set_precision_flags(network, config, onnx, nodes)
        _add_profile(builder, network, config, options.profile)
        serialised = builder.build_serialized_network(network, config)
        if serialised is None:
            raise _build_fault(messages, nodes, options)
        plan, cache = bytes(serialised), bytes(config.get_timing_cache().serialize())
        del parser, serialised, config, network, builder
    runtime, engine = engines.load(plan)
    layers, memory = int(engine.num_layers), engines.memory(engine)
    del engine, runtime
    seconds = time.perf_counter() - start
    return Plan(plan, cache, round(seconds, 3), layers, memory, tuple(dict.fromkeys(messages.warnings)))


def _major() -> int:
    """Returns the major version of TensorRT."""
    import tensorrt as trt

    return int(trt.__version__.split(".")[0])


def _network_flags() -> int:
    """Returns the creation flags of the network.

    TensorRT 8 needs a flag to treat the batch as an ordinary axis, as newer versions always do. The flag for newer
    versions makes the network strongly typed: the precision follows from the tensor types of the graph.
    """
    import tensorrt as trt

    if _major() < 10:
        return 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)  # trt: 8
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # trt: 10, 11


def _parse(onnx: bytes, network: trt.INetworkDefinition, nodes: Sequence[graph.Node]) -> trt.OnnxParser:
    """Parses an ONNX file into a network and returns the parser.

    Raises:
        Fault: Of kind "build", with the names of the nodes that TensorRT cannot parse.
    """
    import tensorrt as trt

    parser = trt.OnnxParser(network, log.logger())
    if parser.parse(onnx):
        return parser
    reasons, failing = [], []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        position = error.node()
        node = nodes[position] if 0 <= position < len(nodes) else None
        prefix = f"node {node.label} ({node.operator}): " if node else ""
        reasons.append(prefix + " ".join(error.desc().split()))
        failing += [node.label] if node else []
    reason = "; ".join(dict.fromkeys(reasons)) or "TensorRT gives no reason"
    message = f"TensorRT {trt.__version__} cannot parse the graph: {reason}"
    raise Fault("build", message, "use another target, or export the network with other operators", failing)


def _config(builder: trt.Builder, options: Options) -> trt.IBuilderConfig:
    """Returns the builder configuration for the options.

    Raises:
        Fault: Of kind "build" if the timing cache is invalid or belongs to another GPU or version of TensorRT.
    """
    import tensorrt as trt

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    config.builder_optimization_level = options.level
    config.clear_flag(trt.BuilderFlag.TF32)
    # All versions have these two tactic sources. So every version chooses from the same kernels, and no version needs
    # cuBLAS or cuDNN.
    sources = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
    config.set_tactic_sources(sum(1 << int(source) for source in sources))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.version_compatible:
        # The plan includes the lean runtime (no EXCLUDE_LEAN_RUNTIME): a separate file could get lost.
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    cache = config.create_timing_cache(options.cache or b"")
    if cache is None or not config.set_timing_cache(cache, False):
        message = "the timing cache is invalid, or belongs to another GPU or version of TensorRT"
        raise Fault("build", message, "use another file for --timing-cache")
    return config


def _set_precision_flags(
    network: trt.INetworkDefinition, config: trt.IBuilderConfig, onnx: bytes, nodes: Sequence[graph.Node]
) -> None:
    """Sets the flags for the precisions that the graph contains, and no other flags: TensorRT 8 is weakly typed.

    Without Q/DQ nodes, the INT8 flag would require a calibrator. In a graph with Q/DQ nodes, these nodes define which
    operations run in int8; a float32 constraint on the operations between the nodes would undo the quantisation.
    """
    import tensorrt as trt

    half, quantised = graph.holds_float16(onnx), graph.is_quantised(nodes)
    if half:
        config.set_flag(trt.BuilderFlag.FP16)  # trt: 8
    if quantised:
        config.set_flag(trt.BuilderFlag.INT8)  # trt: 8
    if half and not quantised:
        _constrain_to_float32(network, config, graph.float32_nodes(onnx), nodes)


def _constrain_to_float32(
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    exact: Sequence[graph.Node],
    nodes: Sequence[graph.Node],
) -> None:
    """Constrains layers to float32 where the graph computes in float32.

    If float16 is permitted, TensorRT 8 may use float16 in any layer. A layer that the parser adds itself (for example a
    shuffle for broadcasting) is constrained if one of its inputs comes from a constrained layer. A layer without a
    float output (a shape, an index) is not constrained: TensorRT refuses a precision there.
    """
    import tensorrt as trt

    names, exact_names = [node.layer for node in nodes], {node.layer for node in exact}
    exact_tensors: set[str] = set()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        outputs = [layer.get_output(number) for number in range(layer.num_outputs)]
        inputs = [layer.get_input(number) for number in range(layer.num_inputs)]
        node = graph.owner(layer.name, layer.metadata, names)
        is_exact = node in exact_names if node else any(tensor and tensor.name in exact_tensors for tensor in inputs)
        if not is_exact or layer.type == trt.LayerType.CAST:  # a Cast ends the float32 region
            continue
        float_outputs = [number for number, tensor in enumerate(outputs) if tensor.dtype == trt.float32]
        if not float_outputs:
            continue
        exact_tensors.update(tensor.name for tensor in outputs)
        layer.precision = trt.float32  # trt: 8
        for number in float_outputs:
            layer.set_output_type(number, trt.float32)  # trt: 8
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)  # trt: 8


def _add_profile(
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    profile: tuple[int, int, int] | None,
) -> None:
    """Adds an optimisation profile if the batch axis is free.

    Raises:
        Fault: Of kind "build" if no profile is given, or if an axis other than the batch is free.
    """
    free = []
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = engines.sizes(tensor.shape)
        if any(size < 0 for size in shape[1:]):
            message = f"the input {tensor.name} has a free axis other than the batch"
            raise Fault("build", message, "use another target")
        if shape and shape[0] < 0:
            free.append((tensor.name, shape[1:]))
    if not free:
        return
    if profile is None:
        message = "the batch axis of the graph is free, but no profile is given"
        raise Fault("build", message, "use --batch, for example --batch 1:8:64")
    optimization_profile = builder.create_optimization_profile()
    for name, fixed in free:
        shapes: list[Any] = [(batch, *fixed) for batch in profile]
        optimization_profile.set_shape(name, *shapes)
    config.add_optimization_profile(optimization_profile)


def _build_fault(messages: log.Messages, nodes: Sequence[graph.Node], options: Options) -> Fault:
    """Returns the fault for a failed build, with the reason and the ONNX nodes from TensorRT's log."""
    import tensorrt as trt

    text = " ".join(messages.errors)
    failing = graph.names_in(text, [name for node in nodes for name in (node.name, *node.outputs)])
    if "out of memory" in text.lower() or "insufficient memory" in text.lower():
        message = f"TensorRT {trt.__version__} has not enough memory to build the engine: {messages.reason}"
        hint = "use a larger --workspace or a smaller --batch, or end other programs that use the GPU"
        return Fault("memory", message, hint, failing)
    where = f" at {', '.join(failing[:3])}" if failing else ""
    message = f"TensorRT {trt.__version__} cannot build the engine{where}: {messages.reason}"
    hint = "use another target" if options.workspace >= WORKSPACE else "try a larger --workspace, or another target"
    return Fault("build", message, hint, failing)
