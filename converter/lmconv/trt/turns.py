"""Workers in turn, A B A B …, each in a process of its own: what slows the GPU then slows all, and ratios hold."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from lmconv.trt.faults import Fault

LIMIT = 300.0
"""Seconds that a worker has for a reply: to load, to compile, to get warm."""
GOODBYE = 10.0
"""Seconds that it has to close."""
GRACE = 5.0
"""Seconds from the end of its output to that of its process."""
LONGEST = 1 << 26
"""Characters of a reply beyond which it is none."""
SAID = 3
"""Of its last lines on standard error that an error repeats."""
BLOCKS = 10
"""Turns that each worker has."""


def python(module: str, *arguments: str | Path) -> list[str]:
    """The command that runs a module of lmconv in a process of its own."""
    safe = ["-P"] if sys.version_info >= (3, 11) else []  # or a file of the user's folder would be taken for a package
    return [sys.executable, *safe, "-m", module, *map(str, arguments)]


class Worker:
    """A process that answers as `lmconv.trt.worker` says; a context manager that ends it, whatever it does.

    Args:
        command: What to run, such as `python("lmconv.trt.worker", "model.engine")`.
        name: What it is called.
        env: Variables of its environment, besides those of this process.
        limit: Seconds that it has for a reply; may be changed.
    """

    def __init__(
        self, command: Sequence[str], name: str, env: Mapping[str, str] | None = None, *, limit: float = LIMIT
    ) -> None:
        self.name, self.limit = name, limit
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        self._replies: queue.Queue[str] = queue.Queue()
        try:
            self._process = subprocess.Popen(  # noqa: S603 (what the caller names)
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=_environment(env),
                start_new_session=True,  # Ctrl-C is for who started it, who then ends it
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            self._said.close()
            raise Fault("run", f"{name}: {command[0]} cannot be run: {error.strerror}") from error
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def _listen(self) -> None:
        """Takes its replies as they come, so that `ask` need not wait for ever; an empty one is their end."""
        assert self._process.stdout is not None
        line = "start"
        while line:
            try:
                line = self._process.stdout.readline(LONGEST)
            except (OSError, ValueError):  # closed meanwhile
                line = ""
            self._replies.put(line)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request; gives the reply.

        Raises:
            Fault: What the worker says went wrong; or it is dead, prints something else, or takes too long: then it is
                ended, and the message has its last lines on standard error.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._replies.get(timeout=self.limit)
        except queue.Empty:
            raise self._broken(f"has not answered for {self.limit:g} s") from None
        except (OSError, ValueError):  # its end of the pipe is closed
            line = ""
        if not line:
            raise self._broken("ended")
        reply = _document(line)
        if reply is None:
            raise self._broken(f"answered {line[:60].strip()!r}")
        if not reply["ok"]:
            hint = str(reply.get("hint", ""))
            raise Fault(str(reply.get("kind", "run")), f"{self.name}: {reply.get('message')}", hint)
        return reply

    def _broken(self, what: str) -> Fault:
        """Ends it; gives the error that says so."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE if what == "ended" else 0)  # for its own exit code
        self._end()
        code = self._process.returncode
        how = f" by {signal.Signals(-code).name}" if what == "ended" and code in _SIGNALS else ""
        how = how or (f" with exit code {code}" if what == "ended" else "")
        last = self._last_lines()
        return Fault("run", f"{self.name}: its process {what}{how}{f': {last}' if last else ''}")

    def _last_lines(self) -> str:
        if self._said.closed:
            return ""
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - 4096))
        lines = [line.strip() for line in self._said.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return " / ".join(lines[-SAID:])

    def _end(self) -> None:
        """Kills it with all processes that it has started, if it still runs."""
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):  # all of them are gone
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._process.poll() is None:
            self.limit = GOODBYE
            with contextlib.suppress(Fault, subprocess.TimeoutExpired):  # it is ended all the same
                self.ask(do="close")
                self._process.wait(GOODBYE)
        self._end()
        self._listener.join(GRACE)
        for pipe in (self._process.stdin, self._said, None if self._listener.is_alive() else self._process.stdout):
            with contextlib.suppress(OSError):  # what was not sent to a dead process
                if pipe is not None:
                    pipe.close()


_SIGNALS = {-int(one) for one in signal.Signals}
"""Exit codes of processes that a signal ended."""


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    """This process's environment and more, in which lmconv is found where it was found here."""
    here = str(Path(__file__).resolve().parents[2])
    found = {**os.environ, **(more or {})}
    found["PYTHONPATH"] = os.pathsep.join(path for path in (here, found.get("PYTHONPATH")) if path)
    return found


def _document(line: str) -> dict[str, Any] | None:
    """A reply, or None for something else."""
    try:
        reply = json.loads(line)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) and isinstance(reply.get("ok"), bool) else None


class Turns(NamedTuple):
    """What was found.

    Attributes:
        times: By worker and kind (`lmconv.trt.timing.KINDS`), milliseconds; as many of each worker, round by round.
        warm_up: By worker: how it got warm, and the GPU's state before and after.
        left_out: By worker: of kinds that it does not time, why.
        faults: Of workers that failed: what went wrong. They are in none of the others.
        states: The GPU's state before the first turn, after each block of turns and at the end: `when`, and what
            `lmconv.trt.device.state` says.
    """

    times: dict[str, dict[str, list[float]]]
    warm_up: dict[str, dict[str, Any]]
    left_out: dict[str, dict[str, str]]
    faults: dict[str, Fault]
    states: list[dict[str, Any]]


def in_turn(
    workers: Sequence[Worker],
    batch: int,
    samples: int,
    blocks: int = BLOCKS,
    *,
    seed: int = 0,
    state: Callable[[], Mapping[str, Any]] | None = None,
    step: Callable[[], object] = lambda: None,
) -> Turns:
    """Times workers in blocks of turns, in another seeded order each; none comes twice in a row, but for the only one.

    Args:
        workers: What to time, each of a name of its own.
        batch: Inputs a run.
        samples: How often each kind of each worker is timed, in all.
        blocks: In how many turns.
        seed: Of the order.
        state: Gives the GPU's clocks and more; `lmconv.trt.device.state` where it is not given.
        step: Called after each turn.
    """
    if state is None:
        from lmconv.trt import device

        state = device.state
    found = Turns({}, {}, {}, {}, [{"when": "before", **state()}])
    running = list(workers)
    for block, (count, order) in enumerate(plan(len(workers), samples, blocks, seed)):
        for index in order:
            if workers[index] in running and not _turn(workers[index], batch, count, found):
                running.remove(workers[index])
            step()
        found.states.append({"when": f"after block {block + 1}", **state()})
    return found


def plan(workers: int, samples: int, blocks: int, seed: int = 0) -> list[tuple[int, list[int]]]:
    """The samples of each block, and the order of workers in it, by index."""
    drawn = random.Random(seed)  # noqa: S311 (an order, no secret)
    blocks = min(blocks, samples)
    found: list[tuple[int, list[int]]] = []
    for block in range(blocks):
        order = drawn.sample(range(workers), workers)
        if order and found and order[0] == found[-1][1][-1]:
            order.reverse()
        found.append((samples * (block + 1) // blocks - samples * block // blocks, order))
    return found


def _turn(worker: Worker, batch: int, samples: int, found: Turns) -> bool:
    """Times one worker once; whether it goes on."""
    try:
        reply = worker.ask(do="time", batch=batch, samples=samples)
    except Fault as fault:
        for known in (found.times, found.warm_up, found.left_out):
            known.pop(worker.name, None)
        found.faults[worker.name] = fault
        return False
    kinds = found.times.setdefault(worker.name, {})
    for kind, times in reply["times"].items():
        kinds.setdefault(kind, []).extend(times)
    found.warm_up.setdefault(worker.name, reply["warm_up"])
    found.left_out.setdefault(worker.name, reply["left_out"])
    return True
