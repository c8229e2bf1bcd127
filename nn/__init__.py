"""Networks on secret tensors: layers named as in ``torch.nn``, models, and their way from torch.

>>> from nn import Linear, Model, Sequential, Sigmoid
>>> net = Sequential({"hidden": Linear(4, 8), "act": Sigmoid(), "out": Linear(8, 2)})

or ``from_torch(module)`` and ``from_onnx(file)``, which alone need torch and onnx, when they are called, and
``from_sklearn(estimator)``.
"""

from __future__ import annotations

from nn.activations import GELU, Activation, Function, Mish, Polynomial, Sigmoid, SiLU, Softplus, Tanh
from nn.architecture import Architecture, Sequential, Step
from nn.assuming import assuming
from nn.attention import ScaledDotProductAttention
from nn.calibrate import InputRange, calibrate, check_ranges
from nn.choosing import Amax, Amin, Clamp, CumSum, Hardshrink, Take, Threshold
from nn.columns import Columns
from nn.dimensions import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool3d,
    Conv1d,
    Conv3d,
    ConvTranspose1d,
    MaxPool1d,
    MaxPool3d,
)
from nn.functional import (
    Add,
    Affine,
    Concatenate,
    Matmul,
    Maximum,
    Mean,
    Minimum,
    Multiply,
    Parameter,
    Permute,
    Reshape,
    Subtract,
)
from nn.importing.from_onnx import from_onnx
from nn.importing.from_sklearn import from_sklearn
from nn.importing.from_torch import from_torch
from nn.inputs import ArrayInput, NamedInput, Result, SeveralInputs, TokenInput
from nn.interface import Classes, Interface, Label
from nn.kernels import RBF, OneAgainstOne
from nn.layer import Layer
from nn.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Conv2d,
    Dropout,
    Flatten,
    Identity,
    Linear,
)
from nn.lookups import ArgMax, Compare, Embedding, OneHot, Where
from nn.losses import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HingeEmbeddingLoss,
    HingeLoss,
    HuberLoss,
    Loss,
    MSELoss,
    SmoothL1Loss,
)
from nn.model import Description, Model
from nn.norms import (
    CosineSimilarity,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    Norm,
    Normalize,
    RMSNorm,
)
from nn.optimizers import SGD, Adam, Optimizer
from nn.preprocessing import ImageInput, PictureWarning, ShadesOfGray
from nn.rectifiers import (
    CELU,
    ELU,
    SELU,
    Abs,
    AdaptiveMaxPool2d,
    Assumed,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    MaxPool2d,
    PReLU,
    ReLU,
    ReLU6,
    Softshrink,
    Softsign,
)
from nn.recurrent import GRU, LSTM, RNN
from nn.resizing import ChannelShuffle, Pad, PixelShuffle, PixelUnshuffle, Upsample
from nn.sampling import Fold, GridSample, TopK, Unfold
from nn.schedules import CosineAnnealingLR, OneCycleLR, Schedule, StepLR
from nn.softmax import LogSoftmax, Softmax
from nn.stored import StoredType
from nn.tables import Column, TableInput
from nn.transposed import ConvTranspose2d
from nn.transposed_volumes import ConvTranspose3d
from nn.trees import Trees

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RBF",
    "RNN",
    "SELU",
    "SGD",
    "Abs",
    "Activation",
    "Adam",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "Add",
    "Affine",
    "Amax",
    "Amin",
    "Architecture",
    "ArgMax",
    "ArrayInput",
    "Assumed",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "ChannelShuffle",
    "Clamp",
    "Classes",
    "Column",
    "Columns",
    "Compare",
    "Concatenate",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CosineAnnealingLR",
    "CosineSimilarity",
    "CrossEntropyLoss",
    "CumSum",
    "Description",
    "Dropout",
    "Embedding",
    "Flatten",
    "Fold",
    "Function",
    "GridSample",
    "GroupNorm",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "HingeEmbeddingLoss",
    "HingeLoss",
    "HuberLoss",
    "Identity",
    "ImageInput",
    "InputRange",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "Interface",
    "Label",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSigmoid",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "Matmul",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Maximum",
    "Mean",
    "Minimum",
    "Mish",
    "Model",
    "Multiply",
    "NamedInput",
    "Norm",
    "Normalize",
    "OneAgainstOne",
    "OneCycleLR",
    "OneHot",
    "Optimizer",
    "PReLU",
    "Pad",
    "Parameter",
    "Permute",
    "PictureWarning",
    "PixelShuffle",
    "PixelUnshuffle",
    "Polynomial",
    "RMSNorm",
    "ReLU",
    "ReLU6",
    "Reshape",
    "Result",
    "ScaledDotProductAttention",
    "Schedule",
    "Sequential",
    "SeveralInputs",
    "ShadesOfGray",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Step",
    "StepLR",
    "StoredType",
    "Subtract",
    "TableInput",
    "Take",
    "Tanh",
    "Threshold",
    "TokenInput",
    "TopK",
    "Trees",
    "Unfold",
    "Upsample",
    "Where",
    "assuming",
    "calibrate",
    "check_ranges",
    "from_onnx",
    "from_sklearn",
    "from_torch",
]


def __dir__() -> list[str]:
    return __all__
