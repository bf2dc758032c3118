"""Nothing that comes with the data, or with weights, is run, by no library that reads it.

That the code calls nothing of the kind is the linter's to see (flake8-bandit's rules, in
pyproject.toml). Entity bombs are in tests/dirty.py.
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data  # noqa: F401  # registers an Arrow type of pickled objects, as in every worker
import torch
from test_classifiers import Malicious
from test_datasets import reader

from sensloc.errors import ClassifierError, DatasetError
from sensloc.methods import Fitted, saved
from sensloc.methods.least_squares import NormalEquations
from sensloc.methods.linear import LinearBox
from sensloc.networks.weights import read_state


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
    linear = NormalEquations.from_batch(np.eye(3), np.eye(3, 4)).solve(1e-3)
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
