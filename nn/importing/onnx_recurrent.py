"""RNN, LSTM and GRU of ONNX: the same networks, with gates in another order and directions as an axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nn import recurrent as rn
from nn.importing.batch_layout import Layout
from nn.importing.blockers import refused
from nn.importing.building import Tensor, part
from nn.importing.onnx_file import READ
from nn.importing.onnx_nodes import Node, Value
from nn.layer import Array

_GATES = {"RNN": (0,), "LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
"""Where ONNX has torch's gates: of an LSTM i, o, f, c; of a GRU z, r, h."""
_USUAL = {"RNN": ("Tanh",), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}


def _recurrent(node: Node) -> Value:
    kind, x = node.kind, node.place(0)
    w, r = node.constant(1), node.constant(2)
    directions, hidden = w.shape[0], r.shape[2]
    layout = node.take("layout", 0)
    said = node.take("direction", "forward")
    if node.has(4) or any(node.has(i) and node.known(i).any() for i in (5, 6, 7)):
        raise refused("it has lengths of sequences, first states that are not zeros, or peepholes", READ)
    if node.take("hidden_size", hidden) != hidden or node.take("input_forget", 0):
        raise refused("its sizes do not go together, or gates are coupled", READ)
    if kind == "GRU":
        node.only("linear_before_reset", 1, 0)
    usual = _USUAL[kind] * directions
    activations = node.take("activations", usual)
    if activations != usual or node.attribute("clip") is not None:
        raise refused(f"its activations are {', '.join(activations)}, or clipped", "use its usual ones")
    if said not in ("forward", "reverse", "bidirectional") or directions != 1 + (said == "bidirectional"):
        raise refused(f"its direction {said!r} is not that of its weights", READ)
    if layout == 0:
        x = node.graph.permuted(x, (1, 0, 2))
    x = node.graph.plain(x)
    batch, steps, width = x.layout.shape
    if said == "reverse":
        x = part(node.graph, x, 1, steps - 1, -1, steps)
    ends = any(node.is_used(i) for i in (1, 2))
    made = {"RNN": rn.RNN, "LSTM": rn.LSTM, "GRU": rn.GRU}[kind]
    layer = made(width, hidden, 1, node.has(3), directions == 2, ends)
    count = (1 + layer.has_cell) if ends else 0
    found = node.add(
        layer, x, layout=Layout((batch, steps + count, directions * hidden), 0, 1, 1), **_weights(node, w, r)
    )
    outputs = part(node.graph, found, 1, 0, 1, steps)
    if said == "reverse":
        outputs = part(node.graph, outputs, 1, steps - 1, -1, steps)
    apart = node.graph.laid_out(outputs, Layout((batch, steps, directions, hidden), 0, 1, 1))
    results: list[Tensor] = [apart if layout else node.graph.permuted(apart, (1, 2, 0, 3))]
    for i in range(count):
        end = part(node.graph, found, 1, steps + i, 1, 1)
        end = node.graph.laid_out(end, Layout((batch, directions, hidden), 0, 1, 1))
        results.append(end if layout else node.graph.permuted(end, (1, 0, 2)))
    return results


def _weights(node: Node, w: Array, r: Array) -> dict[str, Array]:
    """Under torch's names, with gates in torch's order."""
    hidden, found = r.shape[2], {}
    biases = node.constant(3) if node.has(3) else None
    for i, direction in enumerate(("", "_reverse")[: w.shape[0]]):
        parts = {f"weight_ih_l0{direction}": w[i], f"weight_hh_l0{direction}": r[i]}
        if biases is not None:
            one, other = np.split(biases[i], 2)
            parts |= {f"bias_ih_l0{direction}": one, f"bias_hh_l0{direction}": other}
        for name, values in parts.items():
            gates = [values[g * hidden : (g + 1) * hidden] for g in _GATES[node.kind]]
            found[name] = np.concatenate(gates)
    return found


RECURRENT: dict[str, Callable[[Node], Value]] = dict.fromkeys(_GATES, _recurrent)
