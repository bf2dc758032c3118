"""The pass alone, beside version 0.1.0's: the gradient and the foreground of a batch by both.

That version runs in a process of its own, from a checkout, with the memory settings that both
versions' workers have.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer

from benchmarks import before
from benchmarks.gradient import check_same
from benchmarks.passes import FOREGROUND, GRADIENT, Passes, batch_of, network
from benchmarks.turns import Timed, as_workers_run, in_turn, save, table

BEFORE = "version 0.1.0, gradient"


@contextmanager
def version_0_1(checkout: Path, name: str, n: int) -> Iterator[Callable[..., None]]:
    """Have that version make the maps of a batch whenever it is asked to, until the block ends.

    Args:
        checkout: Of that version.
        name: Of the network.
        n: Images of the batch.

    Yields:
        What asks it, and returns when they are made; given a file's name, they go there too.
    """
    with TemporaryDirectory() as folder:
        batch = f"{folder}/batch.pt"
        torch.save((network(name), *batch_of(n)), batch)
        command = [sys.executable, str(before.__file__), batch]
        path = os.environ | {"PYTHONPATH": str(checkout.resolve())}
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=path) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            asked, answers = process.stdin, process.stdout

            def ask(file: str = "") -> None:
                print(file, file=asked, flush=True)
                if not answers.readline():
                    raise RuntimeError(f"{checkout}: version 0.1.0 stopped, see above")

            yield ask


def measured(checkout: Path, name: str, n: int, rounds: int) -> list[Timed]:
    """Return the times of both versions by one network, that version's first.

    Raises:
        AssertionError: They give different maps.
    """
    ours = Passes.of(name).ways(*batch_of(n))
    with version_0_1(checkout, name, n) as theirs, TemporaryDirectory() as folder:
        theirs(f"{folder}/maps.pt")
        check_same(BEFORE, name, torch.load(f"{folder}/maps.pt"), ours[GRADIENT]())
        ways: dict[str, Callable[[], object]] = {BEFORE: theirs}
        ways |= {f"sensloc, {way}": ours[way] for way in (GRADIENT, FOREGROUND)}
        return in_turn(ways, n, rounds)


def main(
    checkout: Annotated[Path, typer.Argument(help="Of version 0.1.0: commit 00fdcd1.")],
    networks: Annotated[list[str] | None, typer.Option("--network", help="Of each.")] = None,
    batch: Annotated[int, typer.Option(help="Images of a batch.")] = 32,
    rounds: Annotated[int, typer.Option(help="Rounds in which the ways take turns.")] = 15,
    output: Path = Path("runs/bench/since.json"),
) -> None:
    """Print milliseconds per map of version 0.1.0 and of this one, each as its workers run."""
    if not (checkout / "sensloc" / "classifiers.py").is_file():
        raise typer.BadParameter(f"{checkout} is no checkout of version 0.1.0")
    as_workers_run()
    tables: dict[str, Any] = {}
    for name in networks or ["efficientnet_lite0"]:
        timed = measured(checkout, name, batch, rounds)
        tables[name] = [asdict(time) for time in timed]
        print(table(f"{name}, batches of {batch}", timed))
    print(save(output, batch=batch, rounds=rounds, networks=tables))


if __name__ == "__main__":
    typer.run(main)
