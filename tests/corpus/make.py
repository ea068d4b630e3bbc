"""Tries the corpus and writes the table and its page: `python -m tests.corpus.make [-j JOBS] [NAME...]`.

A name is the beginning of a construct's name, such as `activations/` or `sizes/blur`; without names all are tried.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import click
from tests.corpus import page, table
from tests.corpus.registry import cases
from tests.corpus.trial import OK


def main(arguments: Sequence[str] | None = None) -> None:
    """Tries the named constructs and writes expected.json and docs/converts.md."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus.make", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of names; everything by default")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count(), help="number of processes")
    parser.add_argument("--page", action="store_true", help="only write the page from the table")
    options = parser.parse_args(arguments)
    rows = table.load()
    if not options.page:
        rows |= _tried(
            [name for name in cases() if not options.names or name.startswith(tuple(options.names))], options.jobs
        )
    rows = {name: rows[name] for name in cases() if name in rows}
    table.save(rows)
    page.PAGE.write_text(page.text(rows), encoding="utf-8")


def _tried(names: list[str], jobs: int) -> dict[str, table.Row]:
    """Tries constructs in several processes, the longest first, and prints and keeps each result."""
    start, rows = time.perf_counter(), {}
    names = sorted(names, key=lambda name: -len(cases()[name].routes))
    with ProcessPoolExecutor(jobs, get_context("spawn"), _alone) as pool:
        futures = {pool.submit(_row, name): name for name in names}
        for done, future in enumerate(as_completed(futures), start=1):
            name, place = futures[future], f"{done:4d}/{len(names)} {time.perf_counter() - start:5.0f} s"
            if error := future.exception():
                click.echo(f"{place}  {name}: not tried: {type(error).__name__}: {error}")
                continue
            rows[name] = future.result()
            table.save(table.load() | {name: rows[name]})
            lines = {line for cell in rows[name]["routes"].values() for line in cell} - {OK, table.NOT_EXPORTED}
            click.echo(f"{place}  {name}: {'; '.join(sorted(lines)) or OK}")
    return rows


def _alone() -> None:
    """Gives a process one thread: there is one process a core."""
    import torch

    torch.set_num_threads(1)


def _row(name: str) -> table.Row:
    return table.row_of(cases()[name])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
