"""From a table to a network's input: named columns, as a model says of itself; checked like all from a stranger."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mpc.errors import EncodingError, ShapeError, UnsupportedError, printable
from mpc.tensor_type import Shape
from nn.files import at_most
from nn.said import of_its_types

MAX_COLUMNS: Final = 1 << 14
MAX_NAME: Final = 200
MOST_VALUE: Final = 2.0**40
MAX_BYTES: Final = 64_000_000
"""Of a table's file."""


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of each row: what it is called, and the range in which it lies.  Raises UnsupportedError."""

    name: str
    low: float
    high: float

    @of_its_types
    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= MAX_NAME or not self.name.isprintable() or self.name != self.name.strip():
            raise UnsupportedError(f"a column has a name of 1 to {MAX_NAME} printable characters")
        if not -MOST_VALUE <= self.low < self.high <= MOST_VALUE:
            raise UnsupportedError(f"[{self.low:g}, {self.high:g}] is not the range of a column")


class TableInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="table"):
    """An input that is a row of numbers, one of each column, in this order; as people know them: what scales them is a
    layer of the network.  Raises UnsupportedError for no columns, too many, or two of one name.
    """

    columns: tuple[Column, ...]

    @of_its_types
    def __post_init__(self) -> None:
        if not 0 < len(self.columns) <= MAX_COLUMNS:
            raise UnsupportedError(f"a table has 1 to {MAX_COLUMNS} columns, not {len(self.columns)}")
        if len({column.name for column in self.columns}) != len(self.columns):
            raise UnsupportedError("two columns have the same name")

    @property
    def shape(self) -> Shape:
        """Of one row."""
        return (len(self.columns),)

    @property
    def low(self) -> float:
        """No value of a row is below."""
        return min(column.low for column in self.columns)

    @property
    def high(self) -> float:
        """No value of a row is above."""
        return max(column.high for column in self.columns)

    def check(self, rows: NDArray[Any], name: str = "the table") -> None:
        """Raises EncodingError, naming row and column, for a value of ``rows`` (N, columns) outside its range, or NaN.

        Raises ShapeError for another shape, EncodingError for what are no numbers.  ``name`` is what errors call it.
        """
        if rows.dtype.kind not in "biuf":
            raise EncodingError(f"{name} must hold real numbers, not {rows.dtype}")
        if rows.ndim != 2 or rows.shape[1:] != self.shape:
            raise ShapeError(f"{name} is of shape {rows.shape}, and the model takes (N, {len(self.columns)})")
        low, high = np.array([(column.low, column.high) for column in self.columns]).T
        wrong = np.argwhere(~((low <= rows) & (rows <= high)))  # NaN too
        if len(wrong):
            row, at = map(int, wrong[0])
            column = self.columns[at]  # and not the value, which may be secret
            raise EncodingError(f"row {row} of {name}: {column.name} is not within {column.low:g} to {column.high:g}")

    def load(self, path: str | Path) -> NDArray[np.float64]:
        """The rows (N, columns) of a CSV file: UTF-8, commas, and a first line of names, in whatever order.

        Columns that the model does not name are left out.  Raises EncodingError for a file that is missing, too large,
        or no such table, with the names that it lacks, or the line and the column of what is no number in the range.
        """
        lines = _lines(Path(path))
        where = self._places(lines[0], str(path))
        rows = np.empty((len(lines) - 1, len(self.columns)))
        for number, line in enumerate(lines[1:]):
            if len(line) != len(lines[0]):
                raise EncodingError(f"row {number} of {path} has {len(line)} values for {len(lines[0])} names")
            for at, place in enumerate(where):
                rows[number, at] = _number(line[place], f"row {number} of {path}: {self.columns[at].name}")
        if not len(rows):
            raise EncodingError(f"{path} has names of columns, and no row")
        self.check(rows, str(path))
        return rows

    def _places(self, names: Sequence[str], path: str) -> list[int]:
        """Where each column is."""
        found = [name.strip() for name in names]
        wanted = [column.name for column in self.columns]
        if missing := [name for name in wanted if name not in found]:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise EncodingError(
                f"{path} has no column called {', '.join(missing[:3])}{more}: its first line names the columns, parted"
                " by commas"
            )
        if twice := [name for name in wanted if found.count(name) > 1]:
            raise EncodingError(f"{path} has two columns called {twice[0]}")
        return [found.index(name) for name in wanted]


def _lines(path: Path) -> list[list[str]]:
    """The cells of a file, by line; blank lines are none."""
    try:
        with path.open("rb") as file:
            data = at_most(file, MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise EncodingError(f"{path} is larger than {MAX_BYTES:,} bytes: give it in parts")
        lines = [line for line in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")) if line]
    except OSError as error:
        raise EncodingError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise EncodingError(f"{path} is not a table (CSV in UTF-8): {printable(str(error))}") from error
    if not lines:
        raise EncodingError(f"{path} is empty: a table's first line names its columns")
    return lines


def _number(cell: str, what: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise EncodingError(f"{what} is no number") from None
