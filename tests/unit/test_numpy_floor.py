"""The declared floor of numpy, 1.26: no module of the library uses a name that only numpy 2 has."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.measure import passes

LIBRARY = Path(artifact.__file__).parents[1]
# dir() of numpy 2.4.6 without dir() of numpy 1.26.4, functions and types only
NUMPY_2 = (
    *("acos", "acosh", "asin", "asinh", "astype", "atan", "atan2", "atanh", "bitwise_count", "bitwise_invert", "bitwise_left_shift"),
    *("bitwise_right_shift", "bool", "concat", "cumulative_prod", "cumulative_sum", "isdtype", "long", "matrix_transpose", "matvec"),
    *("permute_dims", "pow", "strings", "trapezoid", "ulong", "unique_all", "unique_counts", "unique_inverse", "unique_values"),
    *("unstack", "vecdot", "vecmat"),
)
NUMPY_2_LINALG = (
    *("cross", "diagonal", "matmul", "matrix_norm", "matrix_transpose", "outer", "svdvals", "tensordot", "trace", "vecdot"),
    *("vector_norm",),
)
FORBIDDEN = {*(f"np.{name}" for name in NUMPY_2), *(f"np.linalg.{name}" for name in NUMPY_2_LINALG)}


def dotted_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "numpy":
            yield from (f"{node.module.replace('numpy', 'np', 1)}.{alias.name}" for alias in node.names)


def test_no_module_uses_a_name_of_numpy_2_alone():
    used = {(str(path.relative_to(LIBRARY)), name) for path in LIBRARY.rglob("*.py") for name in dotted_names(path)}
    assert any(name == "np.quantile" for _, name in used), "the search finds names of numpy at all"
    assert not {(path, name) for path, name in used if name in FORBIDDEN}


def test_energy_under_a_power_curve_with_uneven_steps(monkeypatch):
    """A constant slope: the area of each trapezoid is exact, so the integral of 2 t from 0 to 3 s is 9 J."""
    monkeypatch.delattr(np, "trapezoid", raising=False)
    at_s = np.array([0.0, 0.5, 2.0, 3.0])
    window = {"phase": "load", "at_ns": [int(1e9 * second) for second in at_s], "values": {"board_w": list(2 * at_s)}}
    assert passes.joules({"name": "board_w", "counter": False}, window) == pytest.approx(9.0)
