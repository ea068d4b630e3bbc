"""The user's request: options for building graphs, faces for calibration, and the variant to build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmconv.building.trial import Timings
from lmconv.machine import this_cpu
from lmconv.store import artifact as artifacts
from lmconv.types import DEFAULT_BUILD, Artifact, BuildOptions, Cpu, Float32, Json, MixedPrecision, Precision

if TYPE_CHECKING:
    import onnx

    from lmconv.building.optimise import Optimised
    from lmconv.building.plain import Plain
    from lmconv.store.reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crops:
    """Face crops for calibration, cut when first needed.

    Attributes:
        cut: Returns network inputs (n, 3, H, W) float32.
        pictures: Returns the identity of each source picture: the first 16 hex digits of its file's sha256.
        note: Line for the user; empty if there is nothing to say.
    """

    cut: Callable[[], Float32]
    pictures: Callable[[], Sequence[str]]
    note: str = ""

    def __call__(self) -> Float32:
        """Returns the network inputs, (n, 3, H, W) float32."""
        return self.cut()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """User options for building the graph.

    Attributes:
        without: Names of the passes to skip.
        compact_px: Bound for compaction, see `PassContext`.
        recipe: An earlier artefact of the same network, target and precision. Its passes run again, and its measured
            decisions are reused instead of measured again.
        mix: Content of precision "mixed".
        decisions: Decisions that passes otherwise take by measuring, by the name of the pass.
        pictures: Identities of the pictures on which `mix` was chosen, see `Crops`.
        exact: Passes of `Target.exact` to run, for every target.
        cpu: Kind of CPU for which int8 is built. None means the kind in `recipe`, or else the kind of this machine.
        engine: Options for building an engine. Without its own timing cache, an engine shares one with all others in
            the output folder.
    """

    without: tuple[str, ...] = ()
    compact_px: float | None = None
    recipe: Artifact | None = None
    mix: MixedPrecision | None = None
    decisions: Json = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    cpu: Cpu | None = None
    engine: BuildOptions = DEFAULT_BUILD

    def repeating(self, recipe: Artifact) -> Choices:
        """Returns the options that repeat an earlier artefact."""
        mix, engine = recipe.recipe.get("mix"), dict(recipe.recipe.get("engine", {}))
        if batches := engine.pop("batches", None):
            engine["profile"] = tuple(batches)
        return replace(
            self,
            recipe=recipe,
            mix=MixedPrecision.of(mix) if mix else None,
            pictures=tuple(recipe.recipe["faces"]) if mix else (),
            engine=replace(self.engine, **engine),
        )

    @property
    def quantised_for(self) -> Cpu:
        """Kind of CPU for which int8 is built."""
        recorded = self.recipe.recipe.get("quantisation", {}) if self.recipe else {}
        return self.cpu or recorded.get("cpu") or this_cpu()

    def decided(self, name: str) -> Json | None:
        """Decisions of a pass that are taken already: from `recipe`, or from `mix`, or else from `decisions`."""
        if self.recipe:
            return artifacts.decided(self.recipe.recipe, name)
        return (self.mix.decisions if self.mix else self.decisions).get(name)


DEFAULT = Choices()


@dataclass(slots=True, kw_only=True)
class GraphCache:
    """Graphs and reference outputs of one network that several variants share.

    Attributes:
        optimised: Result of each pass alone, by the graph, the pass and all options on which the result depends.
        frame: Outputs of the source network for the faces of a seeded frame, once computed.
        timings: Times of graphs.
        memo: Results that passes keep, see `PassContext`.
        graphs: Graphs of built artefacts that take a tensor, without the passes of `Target.last`, by target, precision
            and digest of the artefact.
    """

    optimised: dict[tuple[object, ...], Optimised] = field(default_factory=dict)
    frame: Reference | None = None
    timings: Timings = field(default_factory=Timings)
    memo: dict[tuple[object, ...], Any] = field(default_factory=dict)
    graphs: dict[tuple[str, Precision, str], onnx.ModelProto] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """Everything that the variants of one network share.

    Attributes:
        base: The plain graph.
        out: Artefacts are written to `out/MODEL/VARIANT/`.
        crops: Real faces: int8 calibrates on the crops, and every pass is compared on them.
        choices: User options for building the graph.
        cache: Intermediate graphs, shared by all variants and by every `replace` of this object.
    """

    base: Plain
    out: Path
    crops: Crops | None = None
    choices: Choices = DEFAULT
    cache: GraphCache = field(default_factory=GraphCache)
