"""Linear operations: exactly the clear reading, at any number of parties, and NumPy up to the rounding of constants."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mpc import fixed_point
from mpc.errors import ProgramError, RangeError, ShapeError
from mpc.operation import registered
from mpc.tensor_type import Form, TensorType
from protocols.operations.keep import Keep
from protocols.operations.linear import Divide, Raise, SumPool2d
from protocols.operations.mask import Mask
from protocols.readings.clear import clear, clear_values
from protocols.trace.secret_tensor import concatenate, stack

quick = settings(max_examples=25)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
seeds = st.integers(0, 2**32 - 1)
pairs = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=4)


@quick
@given(pairs, seeds)
def test_sums_of_secrets(secure: Any, drawn: Any, seed: int) -> None:
    x, y = (secure.draw(seed + i, shape) for i, shape in enumerate(drawn.input_shapes))
    assert secure.check(lambda x, y: x + y, x, y).rounds == 0
    secure.check(lambda x, y: x - y, x, y)
    secure.check(lambda x, y: -x - -y + x, x, y)


@quick
@given(pairs, seeds)
def test_sums_with_public_arrays(secure: Any, drawn: Any, seed: int) -> None:
    first, second = drawn.input_shapes
    x, c = secure.draw(seed, first), secure.draw(seed + 1, second, bits=9)
    secure.check(lambda x: x + c, x)
    secure.check(lambda x: c + x, x)
    secure.check(lambda x: x - c, x)
    secure.check(lambda x: c - x, x)


@quick
@given(shapes, st.data())
def test_reductions(secure: Any, shape: tuple[int, ...], data: st.DataObject) -> None:
    axes = data.draw(
        st.none() | st.lists(st.sampled_from(range(len(shape))), unique=True).map(tuple) if shape else st.none()
    )
    keepdims = data.draw(st.booleans())
    x = secure.draw(data.draw(seeds), shape)
    secure.check(lambda x: x.sum(axis=axes, keepdims=keepdims), x)
    count = x.size if axes is None else int(np.prod([shape[a] for a in axes]))
    if count:
        secure.check(lambda x: x.mean(axis=axes, keepdims=keepdims), x, error=4 * 2.0**-14)
    else:
        with pytest.raises(ShapeError):
            secure.secret(shape).mean(axis=axes)


@quick
@given(shapes, st.data())
def test_shapes_and_indices(secure: Any, shape: tuple[int, ...], data: st.DataObject) -> None:
    x = secure.draw(data.draw(seeds), shape)
    order = data.draw(st.permutations(range(len(shape))))
    secure.check(lambda x: x.transpose(*order) if order else x.transpose(), x)
    secure.check(lambda x: x.reshape(x.size), x, parties=(2,))
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    secure.check(lambda x: x[key], x)
    widths = tuple(data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in shape)
    secure.check(lambda x: x.pad(widths), x, reference=lambda x: np.pad(x, widths) if widths else x)


@quick
@given(pairs, seeds)
def test_broadcasting(secure: Any, drawn: Any, seed: int) -> None:
    x = secure.draw(seed, drawn.input_shapes[0])
    shape = drawn.result_shape
    secure.check(lambda x: x.broadcast_to(shape), x, reference=lambda x: np.broadcast_to(x, shape))


@quick
@given(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3), st.data())
def test_joining(secure: Any, shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    seed = data.draw(seeds)
    other = list(shape)
    other[axis] = data.draw(st.integers(0, 3))
    x, y = secure.draw(seed, shape), secure.draw(seed + 1, tuple(other))
    secure.check(
        lambda x, y: concatenate([x, y, x], axis), x, y, reference=lambda x, y: np.concatenate([x, y, x], axis)
    )
    place = data.draw(st.integers(-len(shape) - 1, len(shape)))
    secure.check(lambda x: stack([x, x + 1], place), x, reference=lambda x: np.stack([x, x + 1], place))


def test_joining_with_public_arrays(secure: Any) -> None:
    x, c = secure.draw(0, (2, 3)), np.full((1, 3), 0.5)
    secure.check(lambda x: concatenate([c, x]), x, reference=lambda x: np.concatenate([c, x]))
    with pytest.raises(ShapeError, match="secret"):
        concatenate([c, c])


@quick
@given(st.data())
def test_average_pooling(secure: Any, data: st.DataObject) -> None:
    small = st.integers(1, 3)
    kernel, stride = data.draw(st.tuples(small, small)), data.draw(st.tuples(small, small))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    shape = (data.draw(st.integers(0, 2)), data.draw(small), data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7)))
    assume(all(n + 2 * p >= k for n, p, k in zip(shape[2:], padding, kernel, strict=True)))
    x = secure.draw(data.draw(seeds), shape)

    def reference(x: Any) -> Any:
        if not len(x):
            return np.zeros(
                (0, *torch.nn.functional.avg_pool2d(torch.zeros(1, *shape[1:]), kernel, stride, padding).shape[1:])
            )
        return torch.nn.functional.avg_pool2d(torch.tensor(x), kernel, stride, padding).numpy()

    secure.check(lambda x: x.avg_pool2d(kernel, stride, padding), x, reference=reference, error=9 * 4 * 2.0**-17)


def test_a_window_of_a_power_of_two_is_exact(secure: Any) -> None:
    x = secure.draw(5, (1, 2, 4, 4))
    program = secure.check(lambda x: x.avg_pool2d(2), x, reference=lambda x: x.reshape(1, 2, 2, 2, 2, 2).mean((3, 5)))
    assert [n.operation.name for n in program.nodes] == ["input", "sum_pool2d", "divide"]


@pytest.mark.parametrize("bits", [1, 10, 40])
def test_raising_and_dividing_change_no_value(secure: Any, bits: int) -> None:
    x = secure.draw(1, (3, 4))
    secure.check(lambda x: x / 2**10, x)
    t = TensorType((3,), 16, -1.0, 1.0, Form.MASKED)
    assert Raise(bits).result(t).fraction_bits == 16 + bits
    assert Divide(bits).result(t).high == 2.0**-bits
    assert Divide(-bits).result(t.replace(fraction_bits=bits)) == t.replace(
        fraction_bits=0, low=-(2.0**bits), high=2.0**bits
    )
    with pytest.raises(ProgramError, match="and no further"):
        Divide(-bits - 1).result(t.replace(fraction_bits=bits))


def test_the_clear_reading_takes_as_many_inputs_as_there_are(secure: Any) -> None:
    program = secure.program(secure.secret((2,)) + secure.secret((2,)))
    values = fixed_point.encode(np.zeros(2), 16)
    for count in (0, 1, 3):
        with pytest.raises(ProgramError, match="takes 2"):
            clear(program, [values] * count)


T = TensorType((2, 3), 16, -1.0, 1.0, Form.SHARED)


@pytest.mark.parametrize(
    ("name", "attributes", "types"),
    [
        ("add", {}, (T,)),
        ("add", {}, (T, T.replace(fraction_bits=15))),
        ("add", {}, (T, T.replace(shape=(4, 3)))),
        ("raise", {"bits": 0}, (T,)),
        ("raise", {"bits": -1}, (T,)),
        ("raise", {"bits": 2**63}, (T,)),
        ("divide", {"bits": 61}, (T,)),
        ("declare", {"low": 1.0, "high": -1.0}, (T,)),
        ("declare", {"low": float("nan"), "high": 1.0}, (T,)),
        ("declare", {"low": 2.0, "high": 3.0}, (T,)),
        ("sum", {"axes": (2,), "keepdims": False}, (T,)),
        ("sum", {"axes": (-1,), "keepdims": False}, (T,)),
        ("sum", {"axes": (0, 0), "keepdims": False}, (T,)),
        ("reshape", {"shape": (-2, -3)}, (T,)),
        ("reshape", {"shape": (5,)}, (T,)),
        ("transpose", {"axes": (0, 0)}, (T,)),
        ("broadcast", {"shape": (2, 2)}, (T,)),
        ("broadcast", {"shape": (3,)}, (T,)),
        ("index", {"slices": ((0, 1, 2),)}, (T,)),
        ("index", {"slices": ((0, 1, 3), (0, 1, 3))}, (T,)),
        ("index", {"slices": ((0, -1, 2), (0, 1, 3))}, (T,)),
        ("index", {"slices": ((2, -1, 2), (0, 1, 3))}, (T,)),
        ("index", {"slices": ((-1, 1, 1), (0, 1, 3))}, (T,)),
        ("index", {"slices": ((0, 0, 2), (0, 1, 3))}, (T,)),
        ("index", {"slices": ((0, 2**62, 2), (0, 1, 3))}, (T,)),
        ("index", {"slices": ((0, 1, -1), (0, 1, 3))}, (T,)),
        ("concatenate", {"axis": 0}, ()),
        ("concatenate", {"axis": 2}, (T, T)),
        ("concatenate", {"axis": 0}, (T, T.replace(shape=(2, 4)))),
        ("concatenate", {"axis": 0}, (T, T.replace(shape=(2,)))),
        ("concatenate", {"axis": 0}, (T, T.replace(fraction_bits=15))),
        ("concatenate", {"axis": 0}, (T.replace(fraction_bits=15), T)),
        ("pad", {"widths": ((0, 0),)}, (T,)),
        ("pad", {"widths": ((0, 0), (-1, 0))}, (T,)),
        ("pad", {"widths": ((0, 2**62), (0, 2**62))}, (T,)),
        ("sum_pool2d", {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0)}, (T,)),
    ],
)
def test_what_does_not_go_together_is_refused(name: str, attributes: dict[str, Any], types: tuple[Any, ...]) -> None:
    with pytest.raises((ProgramError, RangeError, ShapeError)):
        registered()[name](**attributes).result(*types).check()


@pytest.mark.parametrize("form", [Form.PUBLIC, Form.MASKED])
def test_what_is_opened_is_shared(form: Form) -> None:
    """A tensor that is masked already has no shared part to mask, and a public one nothing to hide."""
    assert Mask().result(T).form is Form.MASKED
    with pytest.raises(ProgramError):
        Mask().result(T.replace(form=form))


def test_only_what_is_secret_is_kept() -> None:
    for form in (Form.SHARED, Form.MASKED):
        assert Keep("t").result(T.replace(form=form)).form is Form.MASKED
    with pytest.raises(ProgramError):
        Keep("t").result(T.replace(form=Form.PUBLIC))


@pytest.mark.parametrize(
    "build",
    [
        lambda x: x.T,
        lambda x: x[::-1, :, 1:],
        lambda x: x.broadcast_to((2, 2, 3, 4)),
        lambda x: x.pad([(0, 0), (1, 0), (0, 1)]),
        lambda x: concatenate([x, x.transpose(0, 1, 2)], axis=1),
    ],
)
def test_results_are_laid_out_as_they_are_sent(secure: Any, build: Any) -> None:
    """In C order and writable: what is hashed, sent and summed in place is the array's own memory."""
    program = secure.program(build(secure.secret((2, 3, 4))))
    for values in clear_values(program, [fixed_point.encode(secure.draw(0, (2, 3, 4)), 16)]):
        assert values.flags.c_contiguous
        assert values.flags.writeable


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((0, 1), (1, 1), (0, 0)), ((1, 1), (0, 1), (0, 0)), ((3, 3), (1, 1), (2, 0)), ((9, 9), (1, 1), (0, 0)),
     ((-1, 1), (1, 1), (0, 0)), ((2**62, 2**62), (1, 1), (2**61, 2**61)), ((1, 1), (2**63, 1), (0, 0))],
)  # fmt: skip
def test_windows_that_do_not_slide(kernel: Any, stride: Any, padding: Any) -> None:
    zero = TensorType((1, 1, 4, 4), 16, 0.0, 0.0, Form.SHARED)
    with pytest.raises((ProgramError, ShapeError)):
        SumPool2d(kernel, stride, padding).result(zero)
