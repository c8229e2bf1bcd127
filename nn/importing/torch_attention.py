"""torch's attention, and modules that become several steps: an encoder is attention, norms and linear layers.  Needs
torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from nn import activations as a
from nn import functional as f
from nn import layers as ly
from nn import norms as n
from nn import rectifiers as r
from nn.attention import ScaledDotProductAttention
from nn.importing.blockers import refused
from nn.layer import Layer

_MASKS = "leave masks out but is_causal=True, and pad inputs to one length before they are shared"


class Build(Protocol):
    """Adds a step of this name inside the module, and keeps its weights."""

    def __call__(self, name: str, layer: Layer, *inputs: Any, **weights: torch.Tensor | None) -> Any:
        """What it gives."""


Several = Callable[[Any, Build, Sequence[Any], Mapping[str, Any]], Any]
"""Of a module, of the tensors that it is called with, and of its options."""


def attention(
    attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, scale: Any = None, enable_gqa: bool = False
) -> Layer:
    """What ``scaled_dot_product_attention`` is, of its arguments after the three tensors."""
    if attn_mask is not None or enable_gqa:
        raise refused("it takes a mask, or groups of queries", _MASKS)
    if dropout_p:
        raise refused("it drops values at random in evaluation too", "write dropout_p=p if self.training else 0.0")
    return ScaledDotProductAttention(bool(is_causal), None if scale is None else float(scale))


def _no_masks(options: Mapping[str, Any], *known: str) -> bool:
    """Whether it is causal.  Raises UnsupportedError for other masks."""
    rest = {name: value for name, value in options.items() if name not in known and value is not None}
    causal = rest.pop("is_causal", False)
    if rest or (causal and "attn_mask" in options and options["attn_mask"] is not None):
        raise refused(f"it is called with {', '.join(sorted(rest))}", _MASKS)
    return bool(causal)


def _heads(m: nn.MultiheadAttention, build: Build, tensors: Sequence[Any], causal: bool) -> Any:
    """Linear layers of queries, keys and values, attention of each head, and one linear layer."""
    if not m.batch_first:
        raise refused("the batch is not its first dimension", "make it with batch_first=True")
    if not m._qkv_same_embed_dim or m.bias_k is not None or m.add_zero_attn:
        raise refused("its kdim, vdim, add_bias_kv and add_zero_attn are not supported", "make it without them")
    each = m.embed_dim // m.num_heads
    biases = (None,) * 3 if m.in_proj_bias is None else m.in_proj_bias.chunk(3)
    linear = ly.Linear(m.embed_dim, m.embed_dim, m.in_proj_bias is not None)
    split = []
    for name, x, weight, bias in zip(("q", "k", "v"), tensors, m.in_proj_weight.chunk(3), biases, strict=True):
        y = build(name, linear, x, weight=weight, bias=bias)
        y = build(f"{name}_heads", f.Reshape((-1, m.num_heads, each)), y)
        split.append(build(f"{name}_split", f.Permute((0, 2, 1, 3)), y))
    y = build("attention", ScaledDotProductAttention(causal), *split)
    y = build("joined", f.Reshape((-1, m.embed_dim)), build("heads", f.Permute((0, 2, 1, 3)), y))
    last = ly.Linear(m.embed_dim, m.embed_dim, m.out_proj.bias is not None)
    return build("out_proj", last, y, weight=m.out_proj.weight, bias=m.out_proj.bias)


def _multihead(m: Any, build: Build, tensors: Sequence[Any], options: Mapping[str, Any]) -> Any:
    if len(tensors) != 3:
        raise refused("it is called with other things than query, key and value", "call it as attention(x, x, x)")
    causal = _no_masks(options, "need_weights", "average_attn_weights")
    return [_heads(m, build, tensors, causal), None]


def _activation(m: Any) -> Layer:
    known: dict[Any, Layer] = {functional.relu: r.ReLU(), functional.gelu: a.GELU()}
    found = known.get(m.activation)
    if found is None:
        raise refused("its activation is not 'relu' or 'gelu'", "make it with one of these")
    return found


def _inside(build: Build, prefix: str) -> Build:
    def step(name: str, layer: Layer, *inputs: Any, **weights: torch.Tensor | None) -> Any:
        return build(f"{prefix}.{name}", layer, *inputs, **weights)

    return step


def _encoder_layer(m: Any, build: Build, tensors: Sequence[Any], options: Mapping[str, Any]) -> Any:
    causal = _no_masks(options)
    (x,) = tensors
    middle = _activation(m)

    def norm(name: str, own: nn.LayerNorm, y: Any) -> Any:
        layer = n.LayerNorm(tuple(own.normalized_shape), own.eps, own.elementwise_affine, own.bias is not None)
        return build(name, layer, y, weight=own.weight, bias=own.bias)

    def linear(name: str, own: nn.Linear, y: Any) -> Any:
        layer = ly.Linear(own.in_features, own.out_features, own.bias is not None)
        return build(name, layer, y, weight=own.weight, bias=own.bias)

    def attended(y: Any) -> Any:
        return _heads(m.self_attn, _inside(build, "self_attn"), (y, y, y), causal)

    def fed(y: Any) -> Any:
        return linear("linear2", m.linear2, build("activation", middle, linear("linear1", m.linear1, y)))

    for name, own, part in (("norm1", m.norm1, attended), ("norm2", m.norm2, fed)):
        added = partial(build, f"{name}_sum", f.Add(), x)
        x = added(part(norm(name, own, x))) if m.norm_first else norm(name, own, added(part(x)))
    return x


def _encoder(m: Any, build: Build, tensors: Sequence[Any], options: Mapping[str, Any]) -> Any:
    (x,) = tensors
    for number, layer in enumerate(m.layers):
        if type(layer) is not nn.TransformerEncoderLayer:
            raise refused("its layers are of a class of their own", "call them in a forward of a module of one's own")
        x = _encoder_layer(layer, _inside(build, f"layers.{number}"), (x,), options)
    if m.norm is not None:
        if type(m.norm) is not nn.LayerNorm:
            raise refused("its norm is no LayerNorm", "give it a LayerNorm, or none")
        own = m.norm
        layer = n.LayerNorm(tuple(own.normalized_shape), own.eps, own.elementwise_affine, own.bias is not None)
        x = build("norm", layer, x, weight=own.weight, bias=own.bias)
    return x


SEVERAL: dict[type[nn.Module], Several] = {
    nn.MultiheadAttention: _multihead,
    nn.TransformerEncoderLayer: _encoder_layer,
    nn.TransformerEncoder: _encoder,
}
