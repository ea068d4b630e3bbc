"""The recipe of a variant: the passes from the plain graph to the artefact, resolved once from the user's request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from lmconv.building.request import Choices
from lmconv.plugins import PASSES
from lmconv.types import Cpu, Json, MixedPrecision, Pass, Precision, QuantScheme, Target, Variant

PRECISION_PASSES = {Precision.FP16: ("float16",), Precision.INT8: ("int8",)}
"""Passes that lower the precision of a graph. bf16 needs no pass: the precision is a hint to OpenVINO."""
PLAIN_PASSES = ("simplify",)
"""Passes from an exported graph to the plain graph."""
FIRST_PASSES = ("denormals", "freeze", "compact", "linear")
"""Passes that run on every graph before the rewrites of the target; `freeze` only within a bound of compaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Passes and options that turn a plain graph into the graph of one variant.

    Attributes:
        passes: Names of the passes, in order.
        hint: Precision hint passed to the runtime.
        cpu: Kind of CPU for which int8 is built.
        scheme: int8 scheme of the target for this kind of CPU.
        decided: Returns the recorded decisions of a pass; None means that the pass decides by measuring.
        timed: Passes of the graphs that a pass times: those of the variant. fp16 on a CPU shares the passes of fp32,
            because fp16 is for size there. Empty if a pass shall time its own results.
        on_faces: True if the recipe itself was chosen on faces.
        mix: Content of precision "mixed"; None for every other precision.
    """

    passes: tuple[str, ...]
    hint: Precision
    cpu: Cpu
    scheme: QuantScheme
    decided: Callable[[str], Json | None]
    timed: tuple[str, ...] = ()
    on_faces: bool = False
    mix: MixedPrecision | None = None

    @property
    def settings(self) -> Mapping[str, object]:
        """Options of the quantiser that differ from the options of the target."""
        return self.mix.settings if self.mix else {}

    @property
    def quantised(self) -> bool:
        """True if a pass of the recipe calibrates on faces, a refused pass included."""
        return any(PASSES.load(name).calibrated for name in self.lowering)

    @property
    def lowering(self) -> tuple[str, ...]:
        """Passes that lower the precision."""
        return PRECISION_PASSES.get(self.mix.precision if self.mix else self.hint, ())

    def to_json(self) -> Json:
        """Parts of a manifest's `recipe` that follow from the request alone: `mix` and `quantisation`."""
        document: Json = {}
        if self.mix:
            document["mix"] = asdict(self.mix)
        if self.quantised:
            document["quantisation"] = {"cpu": self.cpu, **asdict(self.scheme)}
        return document


def resolve(variant: Variant, target: Target, choices: Choices) -> Recipe:
    """Resolves the recipe of a variant.

    Args:
        variant: The variant to build.
        target: The target that `variant` names.
        choices: User options for building the graph.
    """
    mixed = variant.precision == Precision.MIXED
    mix = choices.mix if mixed else None
    precision = mix.precision if mix else variant.precision
    shared = Precision.FP32 if precision == Precision.FP16 and not target.engines else precision
    return Recipe(
        passes=_passes(precision, mix, target, choices),
        hint=precision_hint(mix) if mix else precision,
        cpu=choices.quantised_for,
        scheme=target.scheme(choices.quantised_for),
        decided=choices.decided,
        timed=() if mixed else _passes(shared, None, target, choices),
        on_faces=mixed,
        mix=mix,
    )


def precision_hint(mix: MixedPrecision) -> Precision:
    """Returns the precision hint passed to the runtime for a mix; bf16 if the float layers compute in bf16."""
    return Precision.BF16 if mix.floats == Precision.BF16 else mix.precision


def _passes(precision: Precision, mix: MixedPrecision | None, target: Target, choices: Choices) -> tuple[str, ...]:
    if choices.recipe:
        return tuple(step["pass"] for step in choices.recipe.recipe["passes"] if step["pass"] not in PLAIN_PASSES)
    first = [name for name in FIRST_PASSES if name != "freeze" or choices.compact_px]
    rewrites = mix.rewrites if mix else target.rewrites.get(precision, ())
    exact = [name for name in dict.fromkeys(target.exact.values()) if name in choices.exact]
    names = (*first, *exact, *rewrites, *PRECISION_PASSES.get(precision, ()))
    return tuple(name for name in names if name not in choices.without)


def needs_tuning(variant: Variant, choices: Choices) -> bool:
    """True if the content of the variant's precision is not chosen yet."""
    return variant.precision == Precision.MIXED and choices.mix is None


def calibrated(precision: Precision) -> bool:
    """True if a precision needs real faces: int8 calibrates on faces, and "mixed" is chosen on faces."""
    return precision == Precision.MIXED or any(
        PASSES.load(name).calibrated for name in PRECISION_PASSES.get(precision, ())
    )


def depends_on_faces(steps: list[Json], recipe: Recipe) -> bool:
    """True if the graph depends on the faces given.

    Args:
        steps: Entries of a manifest's `recipe.passes`.
        recipe: The recipe that ran these passes.
    """
    applied: list[Pass] = [PASSES.load(step["pass"]) for step in steps if not step["refused"]]
    return recipe.on_faces or any(step.calibrated for step in applied)
