"""NumPy's functions, methods and indices on secret tensors: what NumPy says of arrays, or a typed error."""

from __future__ import annotations

import inspect
import math
import operator
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import PositionError, ShapeError, TesseraError, UnknownValueError, UnsupportedError
from protocols.trace.secret_tensor import SecretTensor

quick = settings(max_examples=25)
seeds = st.integers(0, 2**32 - 1)
Build = Callable[[Any, Any], Any]

# Of x and y, both 2 x 3 x 4.
CASES: dict[str, Build] = {
    "add": lambda x, y: np.add(x, y) + np.add(1.5, x) + np.add(np.ones(4), x),
    "subtract": lambda x, y: np.subtract(x, y) - np.subtract(np.arange(4.0), x),
    "multiply": lambda x, y: np.multiply(x, y) + np.multiply(np.float64(0.5), x),
    "scalars of NumPy": lambda x, y: np.float64(3) - x + np.int64(2) * y,
    "divide": lambda x, y: np.divide(x, 4) + np.true_divide(y, np.array([2.0, 4.0, 8.0, 16.0])),
    "matmul": lambda x, y: np.matmul(x, y.swapaxes(1, 2)) + np.matmul(np.eye(3), x) @ np.ones((4, 3)),
    "signs": lambda x, y: np.negative(x) + np.positive(y),
    "powers": lambda x, y: np.square(x) + np.power(y, 2),
    "sum": lambda x, y: np.sum(x, axis=1) + np.sum(y, axis=(1,)) + np.add.reduce(x, axis=1),
    "reduce along the first axis": lambda x, y: np.add.reduce(x) * np.add.reduce(y, axis=None),
    "mean": lambda x, y: np.mean(x, -1, keepdims=True) + np.mean(y),
    "average": lambda x, y: np.average(x, axis=2, weights=[1, 2, 3, 2]) + np.average(y, 2),
    "var": lambda x, y: np.var(x, axis=2) + y.var(axis=2, ddof=1),
    "var of all": lambda x, y: np.var(x) + y.var(axis=(0, 1), keepdims=True),
    "cumsum": lambda x, y: np.cumsum(x, axis=1) + y.cumsum(axis=-1) + np.cumsum(x).reshape(2, 3, 4),
    "trace": lambda x, y: np.trace(x) + np.trace(y, 1, 0, 1),
    "diff": lambda x, y: np.diff(x) + np.diff(y, axis=2),
    "dot": lambda x, y: np.dot(x[0], y[1].T) + x[0].dot(np.ones(4))[:, None] + np.dot(x[0, 0], y[0, 0]),
    "dot of more axes": lambda x, y: np.dot(x, y.transpose(0, 2, 1)),
    "products of vectors": lambda x, y: np.outer(x[0], y[0]) + np.vdot(x, y) + np.inner(x[0, 0], y[0, 0]),
    "inner": lambda x, y: np.inner(x[0], y[1]) + np.inner(np.ones((3, 4)), y[1]),
    "tensordot": lambda x, y: np.tensordot(x, y, ([0, 2], [0, 2])) + np.tensordot(x, np.ones((3, 4))).sum(),
    "kron": lambda x, y: np.kron(x[0, :2, :2], y[0, :2, :3]) + np.kron(np.eye(2), y[0, :2, :3]),
    "reshape": lambda x, y: np.reshape(x, (6, -1)) + np.ravel(y).reshape(6, 4),
    "transpose": lambda x, y: np.transpose(x, (2, 0, 1)) + np.moveaxis(y, 2, 0) + np.transpose(x.T, (0, 2, 1)),
    "swapaxes": lambda x, y: np.swapaxes(x, 0, 2) - y.swapaxes(-1, 0),
    "single axes": lambda x, y: np.squeeze(np.expand_dims(x, (0, 3))) + np.expand_dims(y, 1)[:, 0],
    "broadcast_to": lambda x, y: np.broadcast_to(x[0], (2, 3, 4)) + y,
    "take": lambda x, y: np.take(x, [2, 0, -1], axis=1) + y.take([[0, 1, 2]], 1)[:, 0] + x.take(3),
    "take of all": lambda x, y: np.take(x, [[5, 0], [23, -24]]),
    "diagonal": lambda x, y: np.diagonal(x, 1, 1, 2) + y.diagonal(1, 1, 2),
    "diag": lambda x, y: np.diag(x[0]).sum() + np.diag(y[0, 0], 1),
    "triangles": lambda x, y: np.tril(x) + np.triu(y, 1),
    "flip": lambda x, y: np.flip(x) + np.flip(y, 1) + np.flip(x, (0, 2)) + np.fliplr(x) + np.flipud(y),
    "rot90": lambda x, y: np.rot90(x, 1, (1, 2)) + np.rot90(y, -1, (2, 1)),
    "roll": lambda x, y: np.roll(x, 5) + np.roll(y, -1, axis=2) + np.roll(x, (1, 2), (0, 1)),
    "repeat": lambda x, y: np.repeat(x, 2, axis=0) + np.tile(y, (2, 1, 1)),
    "resize": lambda x, y: np.resize(x, (5, 7)),
    "delete": lambda x, y: np.delete(x, 1, axis=1) + np.delete(y, slice(0, 1), 1),
    "pad": lambda x, y: np.pad(x, 1) + np.pad(y, ((1, 1), (1, 1), (1, 1)), "edge") + np.pad(x, (1, 1), mode="wrap"),
    "where": lambda x, y: np.where(np.arange(4) % 2 == 0, x, y) + np.where([[True], [False], [True]], 0.5, y),
    "concatenate": lambda x, y: np.concatenate([x, y[:, :1], np.ones((2, 1, 4))], axis=1),
    "stack": lambda x, y: np.stack([x, y], axis=-1),
    "vstack": lambda x, y: np.vstack([x[0], y[0, 0], np.ones(4)]),
    "hstack": lambda x, y: np.hstack([x[0], y[0]]).sum() + np.hstack([x[0, 0], y[0, 0]]),
    "column_stack": lambda x, y: np.column_stack([x[0, 0], y[0].T, np.ones(4)]),
    "append": lambda x, y: np.append(x, y) + np.append(x, y, axis=0).reshape(-1),
    "split": lambda x, y: np.split(x, 2, axis=2)[1] - np.split(y, [1, 3], axis=2)[1] + np.hsplit(x, 3)[0][..., :2],
    "array_split": lambda x, y: np.array_split(x, 3, axis=2)[0] + np.vsplit(y, 2)[1][..., 1:3],
    "like": lambda x, y: x + np.ones_like(y) - np.zeros_like(x) * np.full_like(x, 2.0),
    "copy": lambda x, y: np.copy(x) + np.shape(x)[0] + np.ndim(y) + np.size(x) + np.size(y, 1),
    "an array of positions": lambda x, y: x[[1, 0, 1]] + y[np.array([[0], [1], [1]])][:, 0],
    "an array behind a slice": lambda x, y: x[:, [2, 0]] + y[..., [1, 1, 3]][:, :2, :1],
    "arrays of positions": lambda x, y: (
        x[[0, 1], [2, -1]] - y[[1, 0], :, [3, 2]][:, :1] + x[1, [0, 1], None, 2:3][:, 0]
    ),
    "truth values": lambda x, y: x[np.array([True, False])] + y[:, np.array([True, False, True])][:1, :1] * 2,
    "truth values of all": lambda x, y: x[np.arange(24).reshape(2, 3, 4) % 5 == 0],
    "rows": lambda x, y: sum(row.sum() for row in x) + sum(y[0]),
    "no positions": lambda x, y: x[[]].sum() + y.take([]).sum() + x[:, :0].cumsum(1).sum() + y.sum(),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", CASES)
def test_as_numpy(secure: Any, name: str) -> None:
    a, b = (secure.draw(i, (2, 3, 4), -2, 2, bits=12) for i in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        secure.check(CASES[name], a, b, low=-2, high=2, bits=12, error=2.0**-8, parties=(2,))


EINSUMS = [
    "ij,jk->ik",
    "ij,jk",
    "ij->ji",
    "ij->",
    "ii",
    "ii->i",
    "ij,ij->",
    "ij,ij->ij",
    "ij,kl->iljk",
    "i,j->ij",
    "i,i",
    "bij,bjk->bik",
    "...ij,...jk->...ik",
    "...i->...",
    "bij,jk->bik",
    "ij,jk,kl->il",
    "bqd,bkd->bqk",
    "i->i",
    "ij,j,i->",
    "iij->j",
    "b...,b...->b...",
    "ij , jk->ik",
]
SIZES = dict(zip("abijklqd", (2, 2, 3, 3, 2, 4, 2, 3), strict=True)) | {"b": 2}


@pytest.mark.parametrize("subscripts", EINSUMS)
def test_einsum(secure: Any, subscripts: str) -> None:
    terms = subscripts.replace(" ", "").partition("->")[0].split(",")
    shapes = [tuple(SIZES[c] if c != "." else 0 for c in t.replace("...", ".")) for t in terms]
    arrays = [secure.draw(i, tuple(n or 2 for n in shape), -1, 1, 12) for i, shape in enumerate(shapes)]
    secure.check(lambda *xs: np.einsum(subscripts, *xs), *arrays, low=-1, high=1, bits=12, error=2.0**-9, parties=(2,))
    if len(arrays) > 1:
        secure.check(
            lambda x: np.einsum(subscripts, x, *arrays[1:]),
            arrays[0],
            low=-1,
            high=1,
            bits=12,
            error=2.0**-9,
            parties=(2,),
        )


@quick
@given(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4), st.data())
def test_any_index_that_numpy_takes(secure: Any, shape: tuple[int, ...], data: st.DataObject) -> None:
    x = secure.draw(data.draw(seeds), shape)
    arrays = hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, max_side=3))
    masks = hnp.arrays(bool, shape)
    key = data.draw(arrays | masks | hnp.basic_indices(shape, allow_newaxis=True))
    secure.check(lambda x: x[key], x, parties=(2,))


@quick
@given(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9), st.data())
def test_running_sums(secure: Any, shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = secure.draw(data.draw(seeds), shape)
    secure.check(lambda x: x.cumsum(axis), x)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 64, 1000])
def test_the_range_of_a_running_sum(secure: Any, length: int) -> None:
    t = secure.secret((length,), -1.0, 2.0).cumsum(0).type
    assert (t.low, t.high) == (-float(length), 2.0 * length)
    t = secure.secret((length,), 1.0, 2.0).cumsum(0).type
    assert (t.low, t.high) == (1.0, 2.0 * length)


def test_positions_keep_ranges_and_cost_nothing(secure: Any) -> None:
    x = secure.secret((3, 4), -1.0, 2.0)
    for y in (x[[2, 0]], x.take([1]), np.roll(x, 1), np.where(np.eye(3, 4) > 0, x, -x)):
        assert (y.type.low, y.type.high) in ((-1.0, 2.0), (-2.0, 2.0))
        assert secure.program(y).rounds == 0


# What NumPy has, and a secret has not: an error that is typed, whatever NumPy would do by itself.
REFUSED: dict[str, Callable[[Any], Any]] = {
    "in": lambda x: 1.0 in x,
    "in a list": lambda x: x in [1.0, 2.0],
    "index": lambda x: [1.0, x].index(x.sum()),
    "max()": lambda x: max(x),
    "sorted()": lambda x: sorted(x),
    "bool()": bool,
    "and": lambda x: x and x,
    "not": lambda x: not x,
    "if": lambda x: 1 if x.sum() else 2,
    "float()": lambda x: float(x.sum()),
    "int()": lambda x: int(x.sum()),
    "complex()": lambda x: complex(x.sum()),
    "range()": lambda x: range(x.sum()),
    "math": lambda x: math.exp(x.sum()),
    "round()": round,
    "//": lambda x: x // 2,
    "reflected //": lambda x: 2 // x,
    "%": lambda x: x % 2,
    "divmod()": lambda x: divmod(x, 2),
    "&": lambda x: x & x,
    "|": lambda x: 1 | x,
    "~": operator.invert,
    "<<": lambda x: x << 1,
    "array()": np.array,
    "asarray()": np.asarray,
    "array of several": lambda x: np.array([x, x]),
    "float array": lambda x: np.array(x, dtype=np.float32),
    "full": lambda x: np.full((2,), x.sum()),
    "assignment": lambda x: operator.setitem(x, 0, 1.0),
    "into an array in place": lambda x: operator.iadd(np.zeros((2, 3, 4)), x),
    "out": lambda x: np.add(x, x, out=np.zeros((2, 3, 4))),
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "floor": np.floor,
    "prod": np.prod,
    "norm of a matrix": lambda x: np.linalg.norm(x, 2, (0, 1)),
    "norm of an order": lambda x: np.linalg.norm(x, 3, 0),
    "inverse": lambda x: np.linalg.inv(x[0, :, :3]),
    "allclose": lambda x: np.allclose(x, 1),
    "array_equal": lambda x: np.array_equal(x, x),
    "isnan": np.isnan,
    "unique": np.unique,
    "histogram": np.histogram,
    "interp": lambda x: np.interp(x, [0, 1], [0, 1]),
    "where a secret holds": lambda x: np.where(x, 1, 0),
    "secret exponents": lambda x: np.power(x, x),
    "secret positions": lambda x: x[x],
    "secret positions of an array": lambda x: np.arange(4)[x.sum()],
    "take at a secret": lambda x: np.take(np.arange(4), x),
    "dtype": lambda x: np.sum(x, dtype=np.float32),
    "multiply.outer": lambda x: np.multiply.outer(x, x),
    "multiply.reduce": np.multiply.reduce,
    "add.accumulate": np.add.accumulate,
    "pad with ones": lambda x: np.pad(x, 1, constant_values=1),
    "pad with a mean": lambda x: np.pad(x, 1, "mean"),
    "order": lambda x: np.reshape(x, (4, 6), order="F"),
    "save": lambda x: np.save("/dev/null", x),
    "einsum lists": lambda x: np.einsum(x, [0, 1, 2], [0]),
    "positions between": lambda x: x[[0.5]],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_there_is_none_of_is_a_typed_error(secure: Any, name: str) -> None:
    x = secure.secret((2, 3, 4))
    with pytest.raises(UnsupportedError) as caught:
        REFUSED[name](x)
    assert "\n" not in str(caught.value)


def test_a_function_is_called_by_its_whole_name(secure: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"^numpy\.linalg\.inv does not take"):
        np.linalg.inv(secure.secret((3, 3)))


NOT_THEIRS = {
    "show_config",
    "show_runtime",
    "info",
    "test",
    "get_include",
    "printoptions",
    "nested_iters",
    "frompyfunc",
    "vectorize",
    "from_dlpack",
    "busday_count",
    "busday_offset",
    "is_busday",
    "datetime_as_string",
    "save",
    "savez",
    "savez_compressed",
    "savetxt",
    "fromfile",
    "genfromtxt",
    "loadtxt",
    "load",
    "memmap",
    "set_printoptions",
    "piecewise",
    "apply_along_axis",
    "apply_over_axes",
    "fromfunction",
    "fromregex",
}


def functions() -> list[str]:
    """All of NumPy's that may be handed an array."""
    found = (name for name in dir(np) if name.islower() and not name.startswith("_") and name not in NOT_THEIRS)
    return [name for name in found if callable(getattr(np, name)) and not inspect.isclass(getattr(np, name))]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", functions())
def test_no_function_of_numpy_makes_an_array_of_objects(secure: Any, name: str) -> None:
    """Whatever it is called with: a secret tensor, public values, or a typed error; NumPy's own, of bad arguments."""
    x = secure.secret((2, 3, 4))
    for arguments in ((x,), (x, x), (x, 1), (1, x), ([x, x],), (np.ones(4), x), (x, [0, 1]), (np.ones(3), [x, 1.0])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = getattr(np, name)(*arguments)
            except (TesseraError, ZeroDivisionError):
                continue
            except (TypeError, ValueError, AttributeError, LookupError) as error:
                # NumPy's own code, of what it has been handed; ours says it in a typed error.
                assert "numpy" in traceback.extract_tb(error.__traceback__)[-1].filename or _called_directly(error)
                continue
        for part in result if isinstance(result, list | tuple) else [result]:
            assert not isinstance(part, np.ndarray) or part.dtype.kind in "biufcSU", name
            assert part is not NotImplemented


def _called_directly(error: BaseException) -> bool:
    """By this test, as functions of NumPy that are compiled are."""
    return traceback.extract_tb(error.__traceback__)[-1].filename == __file__


def test_an_array_takes_no_secret_element(secure: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        np.zeros(4)[0] = secure.secret(())


def test_comparing_is_not_hashing(secure: Any) -> None:
    x, y = secure.secret((2,)), secure.secret((2,))
    assert {x: 1, y: 2}[y] == 2
    assert len({x, y, x}) == 2


@pytest.mark.parametrize("build", [lambda x: x[2], lambda x: x[[0, 2]], lambda x: x.take([99]), lambda x: x[[0], [3]]])
def test_positions_outside(secure: Any, build: Callable[[Any], Any]) -> None:
    with pytest.raises(PositionError):
        build(secure.secret((2, 3, 4)))
    with pytest.raises(IndexError):
        build(secure.secret((2, 3, 4)))


@pytest.mark.parametrize(
    "build",
    [
        lambda x: np.split(x, 3),
        lambda x: x[np.array([True, False, True])],
        lambda x: x[[0, 1], [0, 1, 2]],
        lambda x: np.einsum("ij,jk->ik", x, x),
        lambda x: np.einsum("ij->ik", x[0]),
        lambda x: np.einsum("ii->i", x[0]),
        lambda x: np.einsum("ij,ij->ij", x[0], np.ones((3, 5))),
        lambda x: np.average(x, axis=2, weights=[1, 2]),
        lambda x: np.diag(x),
        lambda x: np.moveaxis(x, 5, 0),
        lambda x: x.swapaxes(0, 3),
        lambda x: x.cumsum(3),
        lambda x: x.var(axis=0, ddof=2),
        lambda x: np.roll(x, (1, 2, 3), (0, 1)),
        lambda x: np.squeeze(x, 0),
    ],
)
def test_what_does_not_go_together(secure: Any, build: Callable[[Any], Any]) -> None:
    with pytest.raises((ShapeError, np.exceptions.AxisError)):
        build(secure.secret((2, 3, 4)))


def test_functions_of_numpy(secure: Any) -> None:
    x = np.array([1.0, 2.5, 30.0])
    for function in (np.exp, np.log, np.sqrt, np.sin, np.cos, np.tanh, np.reciprocal):
        largest = float(np.abs(function(np.array([1.0, 30.0]))).max())
        secure.check(lambda s, f=function: f(s), x, low=1, high=30, error=2e-3 * max(1.0, largest), parties=(2,))


def test_a_secret_iterates_over_its_rows(secure: Any) -> None:
    assert [row.shape for row in secure.secret((2, 3))] == [(3,), (3,)]
    with pytest.raises(UnknownValueError, match="no length"):
        iter(secure.secret(()))
    rows: list[SecretTensor] = list(secure.secret((0, 3)))
    assert rows == []


def test_a_mean_of_squares(secure: Any) -> None:
    s: npt.NDArray[np.float64] = np.array([1000.0, 1004.0, 1009.0])
    secure.check(lambda s: s.var(), s, low=0, high=2000, error=0.1, parties=(2,))
