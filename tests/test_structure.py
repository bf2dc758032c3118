"""The shape of the house: arrows point down, no circle, nothing is long, Ray is in three rooms."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter

from conftest import ROOT

FLOORS = (
    ("errors", "dice", "boxes", "rows", "sections", "sums", "turns"),
    *(("images",), ("datasets",), ("networks",), ("scoring",), ("heatmaps",), ("methods",)),
    *(("baselines",), ("config",), ("store",), ("prediction",), ("report",), ("init",)),
    *(("engine",), ("stages",), ("comparison",)),
    *(("arguments",), ("command",), ("cli",), ("__main__",)),
)
"""The rooms of the package from the ground up: each imports from its own floor and those below."""

ON_RAY = ("engine", "stages", "comparison")

HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor} | {"": -1}

SOURCES = {
    file.relative_to(ROOT).as_posix(): file.read_text()
    for folder in ("sensloc", "benchmarks", "jobs")
    for file in sorted((ROOT / folder).rglob("*.py"))
}
TREES = {path: ast.parse(source) for path, source in SOURCES.items()}
MODULES = {
    path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): path
    for path in SOURCES
    if path.startswith("sensloc/")
}


def imports(tree: ast.Module) -> Iterator[str]:
    """The dotted names that a module imports, inside functions too: a module, or a name in one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


GRAPH = {
    module: {
        name if name in MODULES else name.rpartition(".")[0]
        for name in imports(TREES[path])
        if name.split(".")[0] == "sensloc"
    }
    for module, path in MODULES.items()
}
"""Module of the package -> those that it imports."""


def room(module: str) -> str:
    """The folder or module right under the package; "" for the package's own file."""
    return module.partition(".")[2].partition(".")[0]


def test_every_room_has_its_floor() -> None:
    assert {room(module) for module in MODULES} <= HEIGHT.keys()


def test_no_arrow_points_up() -> None:
    up = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        for other in sorted(others)
        if HEIGHT[room(other)] > HEIGHT[room(module)]
    ]
    assert not up


def test_there_is_no_circle() -> None:
    TopologicalSorter(GRAPH).prepare()


def test_ray_is_in_three_rooms_and_the_benchmarks_in_none() -> None:
    tops = {
        module: {name.partition(".")[0] for name in imports(TREES[path])}
        for module, path in MODULES.items()
    }
    assert {room(module) for module in tops if "ray" in tops[module]} <= set(ON_RAY)
    assert not [module for module in tops if "benchmarks" in tops[module]]


def test_no_module_is_long() -> None:
    """But the baselines', which are other people's methods."""
    lines = {path: len(source.splitlines()) for path, source in SOURCES.items()}
    assert not {
        path: n for path, n in lines.items() if n > 300 and not path.startswith("sensloc/baselines")
    }


def test_no_function_is_long() -> None:
    lines = {
        f"{path}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not {name: n for name, n in lines.items() if n > 45}


def test_scripts_are_too_thin_to_be_wrong() -> None:
    assert all(
        len(source.splitlines()) <= 6 for path, source in SOURCES.items() if path[:5] == "jobs/"
    )
