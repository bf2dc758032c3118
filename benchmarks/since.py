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
from subprocess import PIPE
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks import before
from benchmarks.gradient import check_same
from benchmarks.passes import FOREGROUND, GRADIENT, Passes, batch_of, network
from benchmarks.turns import Timed, as_workers_run, in_turn, save, table

BEFORE = "version 0.1.0, gradient"


@contextmanager
def version_0_1(checkout: Path, name: str, n: int) -> Iterator[tuple[Tensor, Callable[[], object]]]:
    """Have that version make the maps of a batch whenever it is asked to, until the block ends.

    Args:
        checkout: Of that version.
        name: Of the network.
        n: Images of the batch.

    Yields:
        Its maps, [n, S, S], and what has them made once more.

    Raises:
        RuntimeError: It has ended by itself.
    """
    with TemporaryDirectory() as folder:
        torch.save((network(name), *batch_of(n)), f"{folder}/batch.pt")
        command = [sys.executable, str(before.__file__), folder]
        theirs = os.environ | {"PYTHONPATH": str(checkout.resolve())}
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=theirs) as process:
            asked, answers = process.stdin, process.stdout
            assert asked is not None
            assert answers is not None

            def wait() -> None:
                if not answers.readline():
                    raise RuntimeError(f"{checkout}: version 0.1.0 stopped, see above")

            def ask() -> None:
                print(file=asked, flush=True)
                wait()

            wait()
            yield torch.load(f"{folder}/maps.pt"), ask


def measured(checkout: Path, name: str, n: int, rounds: int) -> list[Timed]:
    """Return the times of both versions by one network, that version's first.

    Raises:
        AssertionError: They give different maps.
    """
    ours = Passes.of(name).ways(*batch_of(n))
    with version_0_1(checkout, name, n) as (maps, theirs):
        check_same(BEFORE, name, maps, ours[GRADIENT]())
        ways = {BEFORE: theirs} | {f"sensloc, {way}": ours[way] for way in (GRADIENT, FOREGROUND)}
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
