"""Networks over sequences, and their cells.  Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nn import activations as a
from nn import functional as f
from nn import rectifiers as r
from nn import recurrent as rn
from nn.importing.aten.choosing import is_zero
from nn.importing.aten.table import OPERATORS, operator
from nn.importing.batch_layout import Layout
from nn.importing.blockers import refused
from nn.importing.building import Known, Tensor, beside, linear, part
from nn.importing.export_graph import Graph, Operator

_NO_STATE = "start from zeros: leave the first state out"


def _layer(make: Any) -> Operator:
    def made(
        graph: Graph, x: Any, first: Any, weights: Sequence[Any], has_biases: bool, num_layers: int, dropout: float,
        train: bool, bidirectional: bool, batch_first: bool,
    ) -> list[Tensor]:  # fmt: skip
        tensor = graph.tensor(x)
        tensor = graph.plain(tensor if batch_first else graph.permuted(tensor, (1, 0, 2)))
        if not all(map(is_zero, first if isinstance(first, list) else [first])):
            raise refused("its first state is not zeros", _NO_STATE)
        if train and dropout:
            raise refused("it is in training mode even in evaluation", "call eval(), so that it reaches it")
        batch, steps, width = tensor.layout.shape
        hidden = graph.known(weights[1]).values.shape[1]
        states = max(graph.used, default=0) > 0
        layer = make(width, hidden, num_layers, has_biases, bidirectional, states)
        if len(layer.parameters) != len(weights):
            raise refused("it has a projection", "leave proj_size out, and put a Linear after it")
        held = dict(zip(layer.parameters, map(graph.known, weights), strict=True))
        count = 2 if bidirectional else 1
        ends = num_layers * (1 + layer.has_cell) if states else 0
        layout = Layout((batch, steps + ends, count * hidden), 0, 1, 1)
        made = graph.add(layer, tensor, layout=layout, **held)
        results = [part(graph, made, 1, 0, 1, steps)]
        for start in range(steps, steps + ends, num_layers):
            end = part(graph, made, 1, start, 1, num_layers)
            results.append(graph.permuted(graph.reshaped(end, (batch, num_layers * count, hidden)), (1, 0, 2)))
        if not batch_first:
            results[0] = graph.permuted(results[0], (1, 0, 2))
        return results

    return made


def _relu_rnn(*arguments: Any) -> rn.RNN:
    return msgspec.structs.replace(rn.RNN(*arguments), nonlinearity="relu")


OPERATORS |= {
    "aten.lstm": _layer(rn.LSTM), "aten.gru": _layer(rn.GRU), "aten.rnn_tanh": _layer(rn.RNN),
    "aten.rnn_relu": _layer(_relu_rnn), "aten.rnn": _layer(rn.RNN),
}  # fmt: skip


# -- cells -------------------------------------------------------------------------------------------------------------


def _product(graph: Graph, x: Any, weight: Any, bias: Any) -> Tensor | Known:
    """A linear layer, of the state too; what is known of zeros is the bias."""
    held, shift = graph.known(weight), None if bias is None else graph.known(bias)
    if isinstance(x, Known):
        values = x.values.double() @ held.values.double().T
        return Known(values if shift is None else values + shift.values.double())
    return linear(graph, graph.plain(x), held, shift)


def _plus(graph: Graph, x: Any, y: Any) -> Tensor:
    layout = next(each.layout for each in (x, y) if isinstance(each, Tensor))
    return _of_two(graph, f.Add(), x, y, layout)


def _of_two(graph: Graph, layer: Any, x: Any, y: Any, layout: Layout) -> Tensor:
    return graph.add(layer, beside(graph, x, layout), beside(graph, y, layout), layout=layout)


def _gates(graph: Graph, x: Any, count: int) -> list[Any]:
    if isinstance(x, Known):
        return [Known(each) for each in x.values.chunk(count, -1)]
    size = x.layout.shape[1] // count
    return [part(graph, x, 1, i * size, 1, size) for i in range(count)]


def _of(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return graph.add(layer, x, layout=x.layout)


@operator("lstm_cell")
def _lstm_cell(
    graph: Graph, x: Any, state: Sequence[Any], w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> list[Tensor]:
    total = _plus(graph, _product(graph, x, w_ih, b_ih), _product(graph, state[0], w_hh, b_hh))
    write, keep, value, show = _gates(graph, total, 4)
    layout = write.layout
    cell = _of_two(graph, f.Multiply(), _of(graph, a.Sigmoid(), write), _of(graph, a.Tanh(), value), layout)
    if not is_zero(state[1]):
        kept = _of_two(graph, f.Multiply(), _of(graph, a.Sigmoid(), keep), state[1], layout)
        cell = _of_two(graph, f.Add(), cell, kept, layout)
    shown = _of_two(graph, f.Multiply(), _of(graph, a.Sigmoid(), show), _of(graph, a.Tanh(), cell), layout)
    return [shown, cell]


@operator("gru_cell")
def _gru_cell(graph: Graph, x: Any, state: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    given = _product(graph, x, w_ih, b_ih)
    was = _product(graph, state, w_hh, b_hh)
    (reset, keep, new), (reset_was, keep_was, new_was) = (_gates(graph, each, 3) for each in (given, was))
    layout = next(each.layout for each in (new, new_was) if isinstance(each, Tensor))
    reset = _of(graph, a.Sigmoid(), _plus(graph, reset, reset_was))
    new = _of(graph, a.Tanh(), _plus(graph, new, _of_two(graph, f.Multiply(), reset, new_was, layout)))
    keep = _of(graph, a.Sigmoid(), _plus(graph, keep, keep_was))
    gained = _of_two(graph, f.Multiply(), keep, _of_two(graph, f.Subtract(), state, new, layout), layout)
    return _of_two(graph, f.Add(), new, gained, layout)


def _rnn_cell(activation: Any) -> Operator:
    def made(graph: Graph, x: Any, state: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
        return _of(
            graph, activation(), _plus(graph, _product(graph, x, w_ih, b_ih), _product(graph, state, w_hh, b_hh))
        )

    return made


OPERATORS |= {
    "aten.rnn_tanh_cell": _rnn_cell(a.Tanh),
    "aten.rnn_relu_cell": _rnn_cell(r.ReLU),
    "aten.rnn_cell": _rnn_cell(a.Tanh),
}
