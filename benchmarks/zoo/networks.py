"""The networks, with random weights.  Libraries are imported when a network is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

CLASSES = 7
TOKENS = 16
"""Of a text."""


class Network(NamedTuple):
    """One network: how it is made, and the shape of one input, of numbers, or of tokens if there is a vocabulary."""

    make: Callable[[], Any]
    shape: tuple[int, ...]
    vocabulary: int = 0


def _torchvision(name: str) -> Callable[[], Any]:
    def make() -> Any:
        import torchvision

        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, num_classes=CLASSES, **options)

    return make


def _segmenting(name: str) -> Callable[[], Any]:
    def make() -> Any:
        import torchvision

        options = {"weights": None, "weights_backbone": None, "num_classes": CLASSES}
        return torchvision.models.get_model(name, **options)

    return make


def _timm(name: str) -> Callable[[], Any]:
    def make() -> Any:
        import timm

        return timm.create_model(name, num_classes=CLASSES)

    return make


def _decoded(name: str) -> Callable[[], Any]:
    """Of segmentation_models_pytorch, on a small encoder."""

    def make() -> Any:
        import segmentation_models_pytorch as library

        return getattr(library, name)("resnet18", encoder_weights=None, classes=CLASSES)

    return make


def _medical(name: str, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        from monai.networks import nets

        return getattr(nets, name)(**options)

    return make


def _transformer(kind: str, layers: int = 2) -> Callable[[], Any]:
    """Two layers of full width, or as many, of tokens."""

    def make() -> Any:
        import torch
        import transformers

        configuration = getattr(transformers, f"{kind}Config")
        count = {"GPT2": "n_layer", "DistilBert": "n_layers"}.get(kind, "num_hidden_layers")
        network = getattr(transformers, f"{kind}Model")(configuration(**{count: layers}))

        class Last(torch.nn.Module):
            """The last state alone."""

            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                state: torch.Tensor = self.network(input_ids=x).last_hidden_state
                return state

        return Last()

    return make


def _next_token() -> Any:
    """GPT-2 small: of each token of the vocabulary, how likely it is to come next."""
    import torch
    import transformers

    network = transformers.GPT2LMHeadModel(transformers.GPT2Config())

    class Next(torch.nn.Module):
        """After the last one alone."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(input_ids=x, logits_to_keep=1).logits
            return logits[:, 0]

    return Next()


_IMAGES: dict[str, tuple[str, ...]] = {
    "torchvision": (
        "alexnet", "vgg11", "vgg11_bn", "vgg16_bn", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2",
        "squeezenet1_0", "squeezenet1_1", "densenet121", "googlenet", "inception_v3", "shufflenet_v2_x0_5",
        "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0",
        "efficientnet_v2_s", "mnasnet0_5", "regnet_y_400mf", "regnet_x_400mf", "convnext_tiny", "swin_t", "swin_v2_t",
        "vit_b_32", "maxvit_t",
    ),
    "timm": (
        "resnet10t", "resnet18d", "resnest14d", "seresnet18", "efficientnet_lite0", "tf_efficientnet_b0",
        "mobilenetv4_conv_small", "mobileone_s0", "ghostnet_100", "hrnet_w18_small", "dla34", "dpn48b",
        "mixer_s32_224", "gmlp_ti16_224", "resmlp_12_224", "vit_tiny_patch16_224", "deit_tiny_patch16_224",
        "cait_xxs24_224", "beit_base_patch16_224", "poolformer_s12", "pvt_v2_b0", "mobilevit_xxs", "edgenext_xx_small",
        "convmixer_768_32", "repvgg_a0", "rexnet_100", "xception41", "nf_resnet26", "fbnetc_100", "hardcorenas_a",
        "lcnet_050", "tinynet_e", "cspresnet50", "darknet53", "selecsls42b", "res2net50d", "skresnet18",
    ),
}  # fmt: skip
_MAKERS = {"torchvision": _torchvision, "timm": _timm}
_SEGMENTING = ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
_DECODED = ("Unet", "UnetPlusPlus", "FPN", "Linknet", "PSPNet", "DeepLabV3Plus", "MAnet", "PAN")
_VOCABULARIES = {
    "Bert": 30522, "GPT2": 50257, "DistilBert": 30522, "Roberta": 50265, "Electra": 30522, "Albert": 30000,
}  # fmt: skip
_SIZES = {"inception_v3": 128, "swin_v2_t": 64, "maxvit_t": 224}
_WHOLE = (
    "vit", "deit", "mixer", "poolformer", "gmlp", "resmlp", "cait", "beit", "pvt", "maxvit",
)  # fmt: skip
"""Those of one size."""
_PLANE = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
_VOLUME = _PLANE | {"spatial_dims": 3}
_STEPS = {"channels": (4, 8, 16), "strides": (2, 2)}
_MEDICAL: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "UNet": (_medical("UNet", **_PLANE, **_STEPS), (1, 32, 32)),
    "UNet3d": (_medical("UNet", **_VOLUME, **_STEPS), (1, 16, 16, 16)),
    "BasicUNet": (_medical("BasicUNet", **_PLANE), (1, 32, 32)),
    "SegResNet": (_medical("SegResNet", **_PLANE), (1, 32, 32)),
    "DenseNet121": (_medical("DenseNet121", **_PLANE), (1, 64, 64)),
    "AttentionUnet": (_medical("AttentionUnet", **_PLANE, **_STEPS), (1, 32, 32)),
}


def _size(name: str) -> int:
    return _SIZES.get(name, 224 if name.startswith(_WHOLE) else 64)


NETWORKS: dict[str, Network] = {
    **{
        f"{library}/{name}": Network(_MAKERS[library](name), (3, _size(name), _size(name)))
        for library, names in _IMAGES.items()
        for name in names
    },
    **{f"torchvision/{name}": Network(_segmenting(name), (3, 64, 64)) for name in _SEGMENTING},
    **{f"segmentation-models-pytorch/{name}": Network(_decoded(name), (3, 128, 128)) for name in _DECODED},
    **{f"monai/{name}": Network(make, shape) for name, (make, shape) in _MEDICAL.items()},
    **{f"transformers/{kind}": Network(_transformer(kind), (TOKENS,), size) for kind, size in _VOCABULARIES.items()},
}
"""By library and name."""
FULL: dict[str, Network] = {
    "transformers/bert-base": Network(_transformer("Bert", 12), (128,), _VOCABULARIES["Bert"]),
    "transformers/gpt2-small": Network(_next_token, (64,), _VOCABULARIES["GPT2"]),
}
"""More, at full size, which take minutes each and 9 GB: run where they are named."""
