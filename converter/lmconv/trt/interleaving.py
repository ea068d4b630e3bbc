"""Times workers interleaved, A B A B …, each in a process of its own.

A GPU that becomes slower then slows all workers, so the ratios between workers stay valid.
"""

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

REPLY_TIMEOUT = 300.0
"""Default time limit of a reply in seconds, enough to load, compile and warm up."""
CLOSE_TIMEOUT = 10.0
"""Time limit for closing a worker, in seconds."""
EXIT_TIMEOUT = 5.0
"""Time limit in seconds for a worker's process to end after the end of its output."""
MAX_REPLY = 1 << 26
"""Maximum length of a reply in characters."""
ERROR_LINES = 3
"""Number of last lines on standard error that an error message repeats."""
BLOCKS = 10
"""Default number of blocks. Each worker is timed once per block."""


def module_command(module: str, *arguments: str | Path) -> list[str]:
    """Returns the command that runs a module of lmconv in a process of its own."""
    options = ["-P"] if sys.version_info >= (3, 11) else []  # a file in the working directory could shadow a package
    return [sys.executable, *options, "-m", module, *map(str, arguments)]


class Worker:
    """A process that speaks the protocol of `lmconv.trt.worker`; a context manager that always ends the process.

    Args:
        command: Command to run, for example `module_command("lmconv.trt.worker", "model.engine")`.
        name: Name of the worker in results and messages.
        env: Environment variables in addition to those of this process.
        timeout: Time limit of a reply in seconds; the attribute may be changed.
    """

    def __init__(
        self, command: Sequence[str], name: str, env: Mapping[str, str] | None = None, *, timeout: float = REPLY_TIMEOUT
    ) -> None:
        self.name, self.timeout = name, timeout
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        self._replies: queue.Queue[str] = queue.Queue()
        try:
            self._process = subprocess.Popen(  # noqa: S603 (the caller's command)
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=_environment(env),
                start_new_session=True,  # Ctrl-C must reach this process only, which then ends the worker
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            self._stderr.close()
            raise Fault("run", f"{name}: {command[0]} cannot be run: {error.strerror}") from error
        self._reader = threading.Thread(target=self._read_replies, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """ID of the worker's process."""
        return self._process.pid

    def _read_replies(self) -> None:
        """Queues the replies as they arrive, so `ask` can wait with a time limit; an empty line marks the end."""
        assert self._process.stdout is not None
        line = "start"
        while line:
            try:
                line = self._process.stdout.readline(MAX_REPLY)
            except (OSError, ValueError):  # the pipe was closed during the read
                line = ""
            self._replies.put(line)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and returns the reply.

        Args:
            request: The request as keywords, for example `do="about"`.

        Raises:
            Fault: If the worker reports an error; or if the worker has ended, exceeds the time limit, or sends a line
                that is not a reply. In the last three cases the process is killed, and the message has the last lines
                of its standard error.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._replies.get(timeout=self.timeout)
        except queue.Empty:
            raise self._failure(f"has not answered for {self.timeout:g} s") from None
        except (OSError, ValueError):  # the worker has closed its end of the pipe
            line = ""
        if not line:
            raise self._failure("ended")
        reply = _parse_reply(line)
        if reply is None:
            raise self._failure(f"sent {line[:60].strip()!r}, which is not a reply")
        if not reply["ok"]:
            hint = str(reply.get("hint", ""))
            raise Fault(str(reply.get("kind", "run")), f"{self.name}: {reply.get('message')}", hint)
        return reply

    def _failure(self, problem: str) -> Fault:
        """Kills the process, and returns the Fault with the problem and the last lines on standard error."""
        ended = problem == "ended"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_TIMEOUT if ended else 0)  # an ended process then has its own exit code
        self._kill()
        code = self._process.returncode
        cause = f" by {signal.Signals(-code).name}" if ended and code in _SIGNALS else ""
        cause = cause or (f" with exit code {code}" if ended else "")
        last = self._last_lines()
        return Fault("run", f"{self.name}: the worker process {problem}{cause}{f': {last}' if last else ''}")

    def _last_lines(self) -> str:
        if self._stderr.closed:
            return ""
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 4096))
        lines = [line.strip() for line in self._stderr.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return " / ".join(lines[-ERROR_LINES:])

    def _kill(self) -> None:
        """Kills the process and its child processes; processes that have ended are ignored."""
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):  # all of these processes have ended
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
            self.timeout = CLOSE_TIMEOUT
            with contextlib.suppress(Fault, subprocess.TimeoutExpired):  # the process is killed below in any case
                self.ask(do="close")
                self._process.wait(CLOSE_TIMEOUT)
        self._kill()
        self._reader.join(EXIT_TIMEOUT)
        for pipe in (self._process.stdin, self._stderr, None if self._reader.is_alive() else self._process.stdout):
            with contextlib.suppress(OSError):  # a dead process has not read all requests
                if pipe is not None:
                    pipe.close()


_SIGNALS = {-int(number) for number in signal.Signals}
"""Exit codes of processes that were ended by a signal."""


def _environment(additions: Mapping[str, str] | None) -> dict[str, str]:
    """Returns this process's environment with additions; PYTHONPATH leads to the same lmconv as in this process."""
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, **(additions or {})}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in (root, environment.get("PYTHONPATH")) if path)
    return environment


def _parse_reply(line: str) -> dict[str, Any] | None:
    """Returns a reply as a dictionary; None if the line is not a reply."""
    try:
        reply = json.loads(line)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) and isinstance(reply.get("ok"), bool) else None


class InterleavedTimes(NamedTuple):
    """Result of interleaved timing.

    Attributes:
        times: Milliseconds by worker and kind (`lmconv.trt.timing.KINDS`), in the order of the rounds; the same number
            of samples for each worker.
        warm_up: By worker: the result of the warm-up, and the GPU's state before and after.
        left_out: By worker: the reason for each kind that is not timed.
        faults: By worker that failed: the error. The other attributes do not contain these workers.
        states: The GPU's state before the first block and after each block: `when`, and the keys of
            `lmconv.trt.device.state`.
    """

    times: dict[str, dict[str, list[float]]]
    warm_up: dict[str, dict[str, Any]]
    left_out: dict[str, dict[str, str]]
    faults: dict[str, Fault]
    states: list[dict[str, Any]]


def time_interleaved(
    workers: Sequence[Worker],
    batch: int,
    samples: int,
    blocks: int = BLOCKS,
    *,
    seed: int = 0,
    state: Callable[[], Mapping[str, Any]] | None = None,
    step: Callable[[], object] = lambda: None,
) -> InterleavedTimes:
    """Times workers interleaved, in blocks with a seeded random order each.

    No worker is timed twice in a row, unless it is the only worker.

    Args:
        workers: Workers to time, with different names.
        batch: Inputs per run.
        samples: Number of samples of each kind, per worker, over all blocks.
        blocks: Number of blocks.
        seed: Seed of the order.
        state: Returns the GPU's clocks and more; None uses `lmconv.trt.device.state`.
        step: Called once per worker and block, even if the worker has failed.

    Returns:
        The times, warm-ups and errors of all workers, and the GPU's states.
    """
    if state is None:
        from lmconv.trt import device

        state = device.state
    result = InterleavedTimes({}, {}, {}, {}, [{"when": "before", **state()}])
    running = list(workers)
    for block, (count, order) in enumerate(schedule(len(workers), samples, blocks, seed)):
        for index in order:
            if workers[index] in running and not _time_block(workers[index], batch, count, result):
                running.remove(workers[index])
            step()
        result.states.append({"when": f"after block {block + 1}", **state()})
    return result


def schedule(workers: int, samples: int, blocks: int, seed: int = 0) -> list[tuple[int, list[int]]]:
    """Returns the number of samples in each block, and the order of the workers in the block, as indices."""
    generator = random.Random(seed)  # noqa: S311 (an order, not a secret)
    blocks = min(blocks, samples)
    result: list[tuple[int, list[int]]] = []
    for block in range(blocks):
        order = generator.sample(range(workers), workers)
        if order and result and order[0] == result[-1][1][-1]:
            order.reverse()
        result.append((samples * (block + 1) // blocks - samples * block // blocks, order))
    return result


def _time_block(worker: Worker, batch: int, samples: int, result: InterleavedTimes) -> bool:
    """Times one worker for one block; True if the worker can be timed again."""
    try:
        reply = worker.ask(do="time", batch=batch, samples=samples)
    except Fault as fault:
        for results in (result.times, result.warm_up, result.left_out):
            results.pop(worker.name, None)
        result.faults[worker.name] = fault
        return False
    kinds = result.times.setdefault(worker.name, {})
    for kind, times in reply["times"].items():
        kinds.setdefault(kind, []).extend(times)
    result.warm_up.setdefault(worker.name, reply["warm_up"])
    result.left_out.setdefault(worker.name, reply["left_out"])
    return True
