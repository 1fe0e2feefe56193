"""Array parameters as they go over the wire: what PostgreSQL documents, byte by byte."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pytest

from pipeline_platform.warehouse.binary_copy import binary_array


@pytest.mark.parametrize(("kind", "oid", "code"), [("i4", 23, "i"), ("i8", 20, "q"), ("f8", 701, "d")])
@pytest.mark.parametrize("values", [[], [7], [-1, 0, 2**31 - 1]])
def test_an_array_of_values(kind: str, oid: int, code: str, values: list[int]) -> None:
    column: npt.NDArray[np.generic] = np.array(values, kind)
    size = struct.calcsize(code)
    body = b"".join(struct.pack(f">i{code}", size, value) for value in values)
    assert binary_array(column) == struct.pack(">5i", 1, 0, oid, len(values), 1) + body


def test_nan_is_null() -> None:
    wanted = struct.pack(">5i", 1, 1, 701, 3, 1) + struct.pack(">idiid", 8, 1.5, -1, 8, -2.0)
    assert binary_array(np.array([1.5, np.nan, -2.0])) == wanted
