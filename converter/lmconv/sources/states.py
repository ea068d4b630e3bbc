"""The state in a checkpoint that fits a network, at any place in the file and with any prefixes of names.

People save a state dict under any key, with prefixes that wrappers add to its names, beside an optimiser and a second,
averaged network. No list of keys can name them all. The content of a file is therefore one flat table of tensors by
dotted name, and the state is the group of tensors whose names end with the names of the network.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmconv.errors import InputError, listed
from lmconv.sources.checkpoint_file import StandIn, read, save_hint
from lmconv.sources.parametrisations import equivalents

if TYPE_CHECKING:
    import torch

State = Mapping[str, "torch.Tensor"]

COUNTER = "num_batches_tracked"
"""BatchNorm's step counter: unused in inference, absent from checkpoints older than PyTorch 0.4.1."""
IGNORED = frozenset({COUNTER, "total_ops", "total_params", "n_averaged"})
"""Last parts of names without effect: the counter above, thop's counts, the step of an averaged network."""
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""Parts of names that wrappers insert: DataParallel, torch.compile, FSDP, checkpointing, Lightning's Fabric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A tensor of a file, and the dotted name of the dict that holds the tensor."""

    tensor: torch.Tensor
    container: str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The tensors of a checkpoint by dotted name, such as `state_dict.module.conv.weight`.

    Attributes:
        entries: The tensors.
        modules: Dotted names of whole pickled networks.
    """

    entries: Mapping[str, Entry]
    modules: tuple[str, ...] = ()

    @classmethod
    def of(cls, content: Any) -> Contents:
        """Returns the tensors in nested dicts and lists."""
        entries: dict[str, Entry] = {}
        modules: list[str] = []
        for container, key, value in _walk(content, "", set()):
            name = _joined(container, key)
            if isinstance(value, StandIn):
                modules.append(name or "the file")
            else:
                entries.setdefault(name, Entry(tensor=value, container=container))
        return cls(entries=entries, modules=tuple(modules))

    def below(self, key: str) -> Contents:
        """Returns the tensors below a dotted name."""
        kept = {name: entry for name, entry in self.entries.items() if name.startswith(f"{key}.")}
        return Contents(entries=kept, modules=tuple(name for name in self.modules if name == key))

    def summary(self) -> str:
        """Returns the dicts of the file with their numbers of tensors, largest first."""
        counts = Counter(re.sub(r"\.\d+(\..*)?$", "", entry.container) for entry in self.entries.values())
        shown = [f"{name or 'top level'} ({count} tensors)" for name, count in counts.most_common()]
        return listed(shown, 5)


def _walk(value: Any, container: str, seen: set[int]) -> Iterator[tuple[str, str, Any]]:
    """Yields (dotted name of the container, key, value) of every tensor and every pickled network."""
    import torch

    if id(value) in seen:  # a pickle may hold itself
        return
    seen = seen | {id(value)}
    if isinstance(value, StandIn):
        if isinstance(value.content, dict) and {"_parameters", "_modules"} <= value.content.keys():
            yield container, "", value
            return
        value = [*value.arguments, value.content]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        part = str(key)
        tensor = getattr(item, "tensor", item)
        if isinstance(tensor, torch.Tensor):
            if isinstance(key, str):
                yield container, key, tensor.detach()
        else:
            yield from _walk(item, _joined(container, part), seen)


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tensors of a file with one common prefix, compared with a network.

    Attributes:
        prefix: Dotted name before the names of the network.
        state: The tensors by their names in the network.
        missing: Names of the network that the group lacks.
        unexpected: Names in the same dicts of the file, without the prefix, that the network lacks.
        shapes: Differences of shapes, in words.
    """

    prefix: str
    state: State
    missing: list[str]
    unexpected: list[str]
    shapes: list[str]

    @property
    def fits(self) -> bool:
        """True if names and shapes are those of the network."""
        return not (self.missing or self.unexpected or self.shapes)

    @property
    def is_average(self) -> bool:
        """True if the name says that the weights are an exponential moving average (EMA)."""
        return "ema" in re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", self.prefix).lower())

    @cached_property
    def distance(self) -> tuple[int, int]:
        """Number of differences, for finding the nearest group."""
        return len(self.missing) + len(self.shapes), len(self.unexpected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The state that fits a network.

    Attributes:
        state: The tensors by their names in the network.
        note: The choice in words, if more than one state fits; else empty.
    """

    state: State
    note: str = ""


def find(contents: Contents, network: State, path: Path, *, key: str = "") -> Found:
    """Returns the state of a checkpoint that fits a network.

    Args:
        contents: Tensors of the file.
        network: State dict of the network.
        path: File of the checkpoint, for messages.
        key: Dotted name in the file below which the state lies; empty to search the whole file.

    Raises:
        InputError: No state fits, or several states fit and none of them is an average.
    """
    within = contents.below(key) if key else contents
    if not within.entries:
        raise _nothing(contents, within, path, key)
    found = groups(within, network)
    fitting = _distinct([group for group in found if group.fits])
    if not fitting:
        raise _misfit(contents, within, min(found, key=lambda group: group.distance), path)
    averages = [group for group in fitting if group.is_average]
    chosen = (averages if len(averages) == 1 else fitting)[0]
    if len(fitting) == 1:
        return Found(state=chosen.state)
    others = ", ".join(group.prefix or "the top level" for group in fitting if group is not chosen)
    if len(averages) != 1:
        hint = f"choose with --key, such as --key {fitting[-1].prefix}"
        raise InputError(f"{path} holds several states that fit: {chosen.prefix or 'top level'}, {others}", hint=hint)
    note = f"{path.name}: weights are {chosen.prefix}, the moving average; {others} fits too, and --key chooses"
    return Found(state=chosen.state, note=note)


def groups(contents: Contents, network: State) -> list[Group]:
    """Returns the groups of tensors that share names with a network; the largest dict if none does."""
    for entries in equivalents({name: entry.tensor for name, entry in contents.entries.items()}, network):
        spelled = _spelled(contents, entries)
        found = [
            _compared(prefix, {head + name: names for name, names in by_name.items()}, spelled, network)
            for head in _heads(network)
            for prefix, by_name in _by_prefix(spelled.entries, {name[len(head) :] for name in network}).items()
        ]
        if any(group.fits for group in found):
            break
    if found:
        return found
    largest = Counter(entry.container for entry in contents.entries.values()).most_common(1)
    return [_compared(container, {}, contents, network) for container, _ in largest]


def _spelled(contents: Contents, tensors: State) -> Contents:
    """Returns the contents with the names of an equivalent state; a new name belongs to the dict of the old name."""
    known = contents.entries
    parents = {name.rpartition(".")[0]: entry.container for name, entry in known.items()}

    def container(name: str) -> str:
        if name in known:
            return known[name].container
        while name and name not in parents:
            name = name.rpartition(".")[0]
        return parents.get(name, "")

    return Contents(entries={name: Entry(tensor=value, container=container(name)) for name, value in tensors.items()})


def _heads(network: State) -> list[str]:
    """Returns the prefixes that all names of a network share, shortest first: a factory may wrap the saved network."""
    names = list(network)
    heads = [""]
    first = names[0].split(".")[:-1] if names else []
    for part in first:
        head = f"{heads[-1]}{part}."
        if not all(name.startswith(head) for name in names):
            break
        heads.append(head)
    return heads


def _by_prefix(names: Collection[str], expected: Collection[str]) -> dict[str, dict[str, list[str]]]:
    """Returns names of a file by prefix and by name in the network, without the parts that wrappers insert.

    The prefix `*` has the names of all prefixes, if each name of the network ends exactly one name of the file.
    """
    bare = {_bare(name.split(".")): name for name in expected}
    if len(bare) < len(expected):
        bare = {name: name for name in expected}
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            rest = ".".join(parts[start:])
            match = rest if rest in expected else bare.get(_bare(parts[start:]))
            if match is not None:
                found[".".join(parts[:start])][match].append(name)
    mixed: dict[str, list[str]] = defaultdict(list)
    for by_name in found.values():
        for name, theirs in by_name.items():
            mixed[name] += [their for their in theirs if their not in mixed[name]]
    if len(found) > 1 and all(len(theirs) == 1 for theirs in mixed.values()):
        found["*"] = mixed
    return found


def _bare(parts: list[str]) -> str:
    return ".".join(part for part in parts if part not in WRAPPERS)


def _compared(prefix: str, by_name: Mapping[str, list[str]], contents: Contents, network: State) -> Group:
    entries = contents.entries
    theirs = {name: min(names, key=len) for name, names in by_name.items()}
    state = {name: entries[their].tensor for name, their in theirs.items()}
    state |= {name: state[twin] for name, twin in _twins(network).items() if name not in state and twin in state}
    containers, used = {entries[their].container for their in theirs.values()} or {prefix}, set(theirs.values())
    start = "" if prefix == "*" or not prefix else f"{prefix}."
    unexpected = [
        name.removeprefix(start)
        for name, entry in entries.items()
        if name not in used and entry.container in containers and name.startswith(start) and not _is_ignored(name)
    ]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(network[name].shape)}"
        for name in network
        if name in state and state[name].shape != network[name].shape and not _is_ignored(name)
    ]
    missing = [name for name in network if name not in state and not _is_ignored(name)]
    return Group(prefix=prefix, state=state, missing=missing, unexpected=unexpected, shapes=shapes)


def _is_ignored(name: str) -> bool:
    return name.rpartition(".")[2] in IGNORED


def _twins(network: State) -> dict[str, str]:
    """Returns names that share a tensor with another name, each with the others' first name."""
    names: dict[tuple[int, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, value in network.items():
        if value.numel() > 1 and not value.is_meta:
            names[value.data_ptr(), tuple(value.shape)].append(name)
    return {name: other for same in names.values() for name in same for other in same if name != other}


def _distinct(fitting: list[Group]) -> list[Group]:
    """Returns groups with different tensors, the shortest prefix first."""
    kept: list[Group] = []
    for group in sorted(fitting, key=lambda group: (group.prefix == "*", group.prefix.count("."), len(group.prefix))):
        if not any(_same(group.state, other.state) for other in kept):
            kept.append(group)
    return kept


def _same(one: State, other: State) -> bool:
    return all(value is other[name] or value.equal(other[name]) for name, value in one.items() if name in other)


def _nothing(contents: Contents, within: Contents, path: Path, key: str) -> InputError:
    """Returns the error of a file, or of a part of a file, without tensors."""
    if within.modules or (contents.modules and not contents.entries):
        return InputError(f"{path} holds a whole pickled network, not a state dict", hint=save_hint(path.name))
    if key:
        there = contents.summary() or "no tensors at all"
        return InputError(f"{path} holds no tensors below {key!r}", hint=f"the file holds {there}")
    return InputError(f"{path} holds no state dict", hint="save the network's state_dict()")


def _misfit(contents: Contents, within: Contents, nearest: Group, path: Path) -> InputError:
    """Returns the error of a file in which no state fits: the nearest group, and all dicts of the file."""
    if contents.modules:
        where = listed(contents.modules)
        return InputError(f"{path} holds a whole pickled network in {where}", hint=save_hint(path.name))
    quantised = [name for name, entry in within.entries.items() if entry.tensor.is_quantized]
    if quantised:
        hint = "save the state_dict() before the network is converted to int8; lmconv quantises the network itself"
        return InputError(f"{path} holds quantised tensors, such as {quantised[0]}", hint=hint)
    problem = next(
        f"{problem} {listed(names)}"
        for problem, names in [
            ("lacks", nearest.missing),
            ("has unexpected", nearest.unexpected),
            ("has different shapes:", nearest.shapes),
        ]
        if names
    )
    several = len({entry.container for entry in contents.entries.values()}) > 1
    there = f"; the file holds {contents.summary()}, and {nearest.prefix or 'top level'} is nearest" if several else ""
    return InputError(f"{path} {problem}{there}", hint="these are not the weights of this network")


def load(network: torch.nn.Module, path: Path, *, key: str = "") -> str:
    """Loads the state of a checkpoint into a network, and returns a note about the choice, see `find`.

    Raises:
        InputError: The file cannot be read, no state fits, or a tensor is not finite.
    """
    found = find(Contents.of(read(path)), network.state_dict(), path, key=key)
    fill(network, found.state, path)
    return found.note


def fill(network: torch.nn.Module, state: State, path: Path) -> None:
    """Loads tensors with the names and shapes of a network into the network, cast to the network's types.

    Args:
        network: The network to fill, in place.
        state: Tensors by name in the network.
        path: File of the state, for messages.

    Raises:
        InputError: A tensor is not a dense tensor of finite real numbers, or two copies of one tensor differ.
    """
    import torch

    expected = network.state_dict()
    for name, value in state.items():
        strange = _strangeness(value, expected[name])
        if strange:
            hint = "save the state_dict() of the float network"
            raise InputError(f"{path} has an entry {name!r} that is {strange}", hint=hint)
    not_finite = [
        name for name, value in state.items() if not torch.isfinite(value.to(_finite_type(expected[name]))).all()
    ]
    for problem, names, hint in [
        ("has NaN or infinity in", not_finite, "train the network again"),
        (
            "stores one tensor twice, with different values:",
            [
                name
                for name, twin in _twins(expected).items()
                if {name, twin} <= state.keys() and not state[name].equal(state[twin])
            ],
            "these are not the weights of this network",
        ),
    ]:
        if names:
            raise InputError(f"{path} {problem} {listed(names)}", hint=hint)
    network.load_state_dict({**expected, **state})


def _finite_type(expected: torch.Tensor) -> torch.dtype:
    import torch

    return expected.dtype if expected.is_floating_point() or expected.is_complex() else torch.float32


def _strangeness(value: torch.Tensor, expected: torch.Tensor) -> str:
    """Returns the reason why a tensor cannot be a weight, in words; empty if it can."""
    import torch

    if value.is_quantized:
        return "quantised"
    if value.is_meta:
        return "without numbers, on the device `meta`"
    if value.layout != torch.strided:
        return "sparse"
    return "complex, not a tensor of real numbers" if value.is_complex() and not expected.is_complex() else ""
