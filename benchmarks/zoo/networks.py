"""The networks, with random weights.  Libraries are imported when a network is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

CLASSES = 7


class Network(NamedTuple):
    """One network: how it is made, and the shape of one input."""

    make: Callable[[], Any]
    shape: tuple[int, ...]


def _torchvision(name: str) -> Callable[[], Any]:
    def make() -> Any:
        import torchvision

        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, num_classes=CLASSES, **options)

    return make


def _timm(name: str) -> Callable[[], Any]:
    def make() -> Any:
        import timm

        return timm.create_model(name, num_classes=CLASSES)

    return make


def _transformer(kind: str, layers: int) -> Callable[[], Any]:
    """Two layers of full width, on embeddings: tokens are looked up by their owner."""

    def make() -> Any:
        import torch
        import transformers

        settings = {"n_layer": layers} if kind == "GPT2" else {"num_hidden_layers": layers}
        config = getattr(transformers, f"{kind}Config")(**settings)
        network = getattr(transformers, f"{kind}Model")(config)

        class Last(torch.nn.Module):
            """The last state alone."""

            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                state: torch.Tensor = self.network(inputs_embeds=x).last_hidden_state
                return state

        return Last()

    return make


_IMAGES = {
    "torchvision": (
        "alexnet", "vgg11_bn", "resnet18", "resnet50", "squeezenet1_1", "densenet121", "googlenet", "inception_v3",
        "shufflenet_v2_x0_5", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "mnasnet0_5", "regnet_y_400mf",
        "convnext_tiny", "swin_t", "vit_b_32",
    ),
    "timm": (
        "resnet10t", "efficientnet_lite0", "mobilenetv4_conv_small", "ghostnet_100", "hrnet_w18_small", "mixer_s32_224",
        "vit_tiny_patch16_224", "deit_tiny_patch16_224", "poolformer_s12", "repvgg_a0",
    ),
}  # fmt: skip
_MAKERS = {"torchvision": _torchvision, "timm": _timm}
_SIZES = {"inception_v3": 128}
_WHOLE = ("vit", "deit", "mixer", "poolformer")
"""Of timm, those of one size."""


def _size(name: str) -> int:
    return 224 if name.startswith(_WHOLE) else _SIZES.get(name, 64)


NETWORKS: dict[str, Network] = {
    **{
        f"{library}/{name}": Network(_MAKERS[library](name), (3, _size(name), _size(name)))
        for library, names in _IMAGES.items()
        for name in names
    },
    **{f"transformers/{kind}": Network(_transformer(kind, 2), (16, 768)) for kind in ("Bert", "GPT2", "DistilBert")},
}
"""By library and name."""
