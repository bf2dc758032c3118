"""Nothing that comes with the data, or with weights, is run: neither by our code nor by a library.

Entity bombs are in tests/dirty.py, a checkpoint that holds code in tests/test_classifiers.py.
"""

import ast
import io
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data  # noqa: F401  # registers an Arrow type of pickled objects, as in every worker
import torch
from conftest import ROOT
from test_classifiers import Malicious
from test_datasets import reader

from sensloc.errors import ClassifierError, DatasetError
from sensloc.methods import Fitted, saved
from sensloc.methods.least_squares import LinearMap
from sensloc.methods.linear import LinearBox
from sensloc.networks.weights import read_state

# ------------------------------------------------------------------------------- our code

MODULES = re.compile(r"(pickle|cloudpickle|dill|joblib|marshal|shelve|xml)(\..+)?")
NAMES = re.compile(
    r"(builtins\.)?(eval|exec|compile|__import__)"
    r"|os\.(system|popen|exec.+|spawn.+)|subprocess\.get(status)?output"
    r"|yaml\.(unsafe|full)_load(_all)?|.+\.(extract|extractall|unpack_archive|read_pickle)"
)
ALLOWED = {"xml.etree.ElementTree.ParseError", "xml.sax.saxutils.escape"}  # they read nothing
GUARDS = {
    "torch.load": ("weights_only", {"True"}),
    "numpy.load": ("allow_pickle", {"False", ""}),
    "yaml.load": ("Loader", {"yaml.SafeLoader", "yaml.CSafeLoader"}),
}
"""An argument that a call must give by name, and its values; "" where it may be left out."""


def offences(source: str) -> Iterator[str]:
    """What a module names, however it imported it, that can run what it reads."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            whole = (
                f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            )
            names[alias.asname or alias.name] = whole
            if MODULES.fullmatch(whole) and whole not in ALLOWED:
                yield whole
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name | ast.Attribute):
            continue
        first, dot, rest = ast.unparse(node).partition(".")
        name = names.get(first, first) + dot + rest
        call = calls.get(id(node), ast.Call(node, [], []))
        given = {word.arg or "**": ast.unparse(word.value) for word in call.keywords}
        argument, fine = GUARDS.get(name, ("", {""}))
        shell = name.startswith("subprocess.") and not {"shell", "**"}.isdisjoint(given)
        unnamed = name in GUARDS and (len(call.args) > 1 or id(node) not in calls or "**" in given)
        if NAMES.fullmatch(name):
            yield name
        elif shell or unnamed or given.get(argument, "") not in fine:
            yield ast.unparse(call)


BAD = """
import pickle
import pickle as json
from pickle import loads
import xml.etree.ElementTree as ET
from xml.etree import ElementTree
from xml.sax import parse
import marshal, json
import shelve
import dill
import joblib
def later(): import cloudpickle
eval(text)
exec(text)
compile(text, "", "exec")
run = eval
__import__("os")
import builtins; builtins.exec(text)
import os; os.system("ls")
import os; os.popen("ls")
import os; os.execvp("ls", [])
from os import system as say; say("ls")
import subprocess; subprocess.run("ls", shell=True)
import subprocess as sp; sp.Popen(command, shell=maybe)
from subprocess import run; run("ls", **options)
import subprocess; subprocess.getoutput("ls")
import torch; torch.load(file)
import torch; torch.load(file, weights_only=False)
import torch; torch.load(file, weights_only=maybe)
import torch; torch.load(file, **options)
from torch import load; load(file)
import torch; read = torch.load
import numpy as np; np.load(file, allow_pickle=True)
import numpy as np; np.load(file, None, True)
from numpy import load; load(file, allow_pickle=maybe)
import numpy; list(map(numpy.load, files))
import yaml; yaml.load(text)
import yaml; yaml.load(text, Loader=yaml.Loader)
import yaml; yaml.unsafe_load(text)
import tarfile; tarfile.open(file).extractall()
shard.extract(member)
import shutil; shutil.unpack_archive(file)
import pandas as pd; pd.read_pickle(file)
""".strip().splitlines()

GOOD = """
import json, tomllib
from defusedxml import ElementTree
from xml.etree.ElementTree import ParseError
import re; re.compile("a")
network.eval()
xml = pickle = "<annotation/>"; print(xml, pickle)
import subprocess; subprocess.run(["git", "log"], check=True)
import torch; torch.load(file, weights_only=True)
from torch import load as read; read(file, map_location="cpu", weights_only=True)
import numpy as np; np.load(file)
import numpy as np; np.load(file, allow_pickle=False)
import yaml; yaml.safe_load(text)
import yaml; yaml.load(text, Loader=yaml.SafeLoader)
shard.extractfile(member)
""".strip().splitlines()


@pytest.mark.parametrize("line", BAD)
def test_what_could_run_data_is_seen(line: str) -> None:
    assert list(offences(line))


@pytest.mark.parametrize("line", GOOD)
def test_what_cannot_is_let_through(line: str) -> None:
    assert not list(offences(line))


def test_the_project_runs_nothing_that_it_reads() -> None:
    files = [file for folder in ("sensloc", "jobs") for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 50
    assert not {str(file): found for file in files if (found := list(offences(file.read_text())))}


# ------------------------------------------------------------------------------- the libraries


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare"])
def test_weights_run_nothing(tmp_path: Path, kind: str) -> None:
    marker, file = tmp_path / "the code ran", tmp_path / "weights.pt"
    if kind == "bare":
        file.write_bytes(pickle.dumps(Malicious(marker)))
    else:
        state = {"weight": Malicious(marker)}
        torch.save(state, file, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ClassifierError, match=r"weights\.pt is not a checkpoint of plain tensors"):
        read_state(str(file))
    assert not marker.exists()


def test_a_fitted_method_runs_nothing(tmp_path: Path) -> None:
    marker, file = tmp_path / "the code ran", tmp_path / "method.npz"
    linear = LinearMap().fit(np.eye(3), np.eye(3, 4))
    file.write_bytes(saved.dumps(Fitted(LinearBox(linear, "l2"), {})))
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    np.save(buffer, np.array([Malicious(marker)], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in (parts | {"linear.coef_.npy": buffer.getvalue()}).items():
            archive.writestr(name, part)
    for data in (file.read_bytes(), buffer.getvalue(), pickle.dumps(Malicious(marker))):
        with pytest.raises(saved.MethodError, match=r"method\.npz: not a method"):
            saved.loads(data, str(file))
    assert not marker.exists()
    assert np.load(io.BytesIO(buffer.getvalue()), allow_pickle=True).size == 1
    assert marker.exists(), "the test's own check"


@pytest.mark.parametrize("column", ["uri", "label", "x0"])
def test_a_table_runs_nothing(tmp_path: Path, column: str) -> None:
    """Ray registers an Arrow type whose values are unpickled as soon as they are looked at."""
    marker, file = tmp_path / "the code ran", tmp_path / "boxes.parquet"
    kind = {"ARROW:extension:name": "ray.data.arrow_pickled_object", "ARROW:extension:metadata": ""}
    evil = pa.field(column, pa.large_binary(), metadata=kind)
    fields = [pa.field(key, pa.string()) for key in ("uri", "label", "x0", "y0", "x1", "y1")]
    schema = pa.schema([evil if field.name == column else field for field in fields])
    cells: Any = {
        key: [pickle.dumps(Malicious(marker)) if key == column else "1"] for key in schema.names
    }
    pq.write_table(pa.table(cells, schema), file)
    found = reader("table", tmp_path, file=file.name)
    for read in (found.units, lambda: list(found.read({"only": None}))):
        with pytest.raises(DatasetError, match=f"the column {column} is of type extension<ray"):
            read()
    assert not marker.exists()
    assert len(pq.read_table(io.BytesIO(file.read_bytes())).to_pylist()) == 1
    assert marker.exists(), "the test's own check"
