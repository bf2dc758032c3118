"""The run's network: loaded, hashed, and made a maker of heat maps, the same for every stage.

torch is imported where the network is: a job's first process, which only asks for it, has none.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from sensloc.engine import units
from sensloc.engine.pool import by_actor
from sensloc.heatmaps import is_learned
from sensloc.stages.readout_file import readouts_of
from sensloc.store.passes import batch_size_of, passes_of, precision_of
from sensloc.store.provenance import Machine, differences
from sensloc.store.run import RunDir, RunError

if TYPE_CHECKING:
    from torch import nn

    from sensloc.heatmaps.maker import MapMaker
    from sensloc.heatmaps.passes import Options
    from sensloc.networks.precision import Precision
    from sensloc.networks.taps import Tap
    from sensloc.prediction.looks import Looker

T = TypeVar("T")


def require_same_weights(run: RunDir) -> str:
    """Return the hash of the run's network, which made its maps on such a device.

    Raises:
        RunError: Another network made them, or another kind of device; which is named.
    """
    digest, machine, _ = network_and_machine(run, makes_its_maps)
    here = {"weights": digest, "device": machine.device} | passes_of(run)
    if differs := differences(run.stages()["sensitivity"]["of"], here):
        raise RunError(f"{run.url}: sensitivity/ was made otherwise ({'; '.join(differs)})")
    return digest


def network_and_machine(run: RunDir, check: Callable[[RunDir], T]) -> tuple[str, Machine, T]:
    """Return a hash of the run's network, the machine that it runs on, and what ``check`` returns.

    An actor finds them, where the network will be, before any unit of work asks for it.
    """
    return by_actor(run, _checked, check, units=len(units.names(run, "manifest")))


def _checked(run: RunDir, check: Callable[[RunDir], T]) -> tuple[str, Machine, T]:
    return weights_of(run), Machine.here(run.config.resources.gpus_per_actor), check(run)


def weights_of(run: RunDir) -> str:
    """Return a hash of the run's network, where the network is."""
    from sensloc.networks.prepare import weights_hash

    return weights_hash(load_network_of(run))


def makes_its_maps(run: RunDir) -> None:
    """Prepare the run's network for its heat maps.

    Raises:
        ClassifierError: It has no place for one.
    """
    looker(run, run.config.maps, "cpu")


def load_network_of(run: RunDir) -> "nn.Module":
    """Return the run's network, on the CPU, its number of outputs not yet checked."""
    return run.config.classifier.load(run.at("classifier.pt"))


def map_maker(
    run: RunDir,
    names: Sequence[str],
    device: str,
    taps: "Iterable[Tap]" = (),
    backward: bool = False,
    precision: "Precision | None" = None,
    batch_size: int | None = None,
) -> "MapMaker":
    """Return the maker of some heat maps by the run's network.

    Args:
        run: The run directory.
        names: Names of heat maps, see ``sensloc.heatmaps``.
        device: Where the network goes.
        taps: What is kept of the pass beside.
        backward: Whether derivatives at these are wanted too.
        precision: Of the passes; None: the run's.
        batch_size: Of the passes; None: the run's.

    Raises:
        ClassifierError: The network cannot be loaded, or has no place for a heat map.
    """
    from sensloc.heatmaps import maker
    from sensloc.networks.prepare import prepare

    classifier = run.config.classifier
    chosen = precision or precision_of(run)
    return maker.map_maker(
        lambda: load_network_of(run),
        lambda network, at: prepare(network, classifier, device, at, chosen),
        names,
        _options(run, names),
        taps,
        mean=classifier.mean,
        std=classifier.std,
        batch_size=batch_size or batch_size_of(run),
        grid=run.config.sensitivity.grid,
        device=device,
        backward=backward,
    )


def _options(run: RunDir, names: Iterable[str]) -> "Options":
    """Return the numbers that the readings of these heat maps depend on."""
    from sensloc.heatmaps.passes import Options

    compare = run.config.compare
    return Options(
        channels=run.config.sensitivity.channels,
        samples=compare.smoothgrad_samples,
        level=compare.smoothgrad_level,
        seed=compare.seed,
        steps=compare.integrated_steps,
        gradcam_layer=compare.gradcam_layer,
        readouts={name: readouts_of(run, name) for name in names if is_learned(name)},
    )


def looker(run: RunDir, names: Sequence[str], device: str) -> "Looker":
    """Return the maker of some heat maps, a second look's among them: see ``map_maker``."""
    from sensloc.prediction.looks import Looker

    return Looker.of(names, lambda names: map_maker(run, names, device))
