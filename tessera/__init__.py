"""Tessera: secure multi-party computation on secret-shared tensors.

>>> import tessera as ts
>>> with ts.LocalCluster(parties=3) as cluster, ts.Client(cluster) as client:
...     x = client.share([1.0, 2.0])
...     print(client.reveal(x * x))

All that a program of one's own needs is here, every error included; ``ts.nn`` has the layers.  PyTorch is imported by
``from_torch`` alone, when it is called.
"""

import nn
from mpc.cost import Cost, Latency, LayerCost, Link
from mpc.errors import (
    AuthenticationError,
    ConfigurationError,
    DiskFull,
    EncodingError,
    MacCheckError,
    MaterialError,
    NameTaken,
    NoSuchName,
    NotPermitted,
    PeerError,
    PeerLost,
    PeerUnavailable,
    PositionError,
    ProgramError,
    ProtocolViolation,
    RangeError,
    RemoteError,
    ServerBusy,
    ShapeError,
    TesseraError,
    TooLarge,
    UnknownValueError,
    UnsupportedError,
    UsageError,
    VersionMismatch,
)
from mpc.security import Security
from nn import (
    ArrayInput,
    Classes,
    ImageInput,
    InputRange,
    Interface,
    Label,
    Model,
    Sequential,
    ShadesOfGray,
    calibrate,
    check_ranges,
    from_torch,
)
from parties import (
    AsyncClient,
    Client,
    Cluster,
    DataSet,
    KeyPair,
    LocalCluster,
    MemoryCluster,
    ModelEntry,
    PreparedRun,
    RemoteData,
    RemoteModel,
    RunReport,
    Settings,
    StockReport,
)
from parties.client.report import LayerReport, Phase
from parties.client.uploading import UploadProgress
from protocols import RangeWarning, SecretTensor, concatenate, stack
from protocols.approximation import (
    CompositeFit,
    Fit,
    FourierFit,
    PolynomialFit,
    default_fit,
    fit,
    fit_fourier,
    fit_polynomial,
)

__all__ = [
    "ArrayInput",
    "AsyncClient",
    "AuthenticationError",
    "Classes",
    "Client",
    "Cluster",
    "CompositeFit",
    "ConfigurationError",
    "Cost",
    "DataSet",
    "DiskFull",
    "EncodingError",
    "Fit",
    "FourierFit",
    "ImageInput",
    "InputRange",
    "Interface",
    "KeyPair",
    "Label",
    "Latency",
    "LayerCost",
    "LayerReport",
    "Link",
    "LocalCluster",
    "MacCheckError",
    "MaterialError",
    "MemoryCluster",
    "Model",
    "ModelEntry",
    "NameTaken",
    "NoSuchName",
    "NotPermitted",
    "PeerError",
    "PeerLost",
    "PeerUnavailable",
    "Phase",
    "PolynomialFit",
    "PositionError",
    "PreparedRun",
    "ProgramError",
    "ProtocolViolation",
    "RangeError",
    "RangeWarning",
    "RemoteData",
    "RemoteError",
    "RemoteModel",
    "RunReport",
    "SecretTensor",
    "Security",
    "Sequential",
    "ServerBusy",
    "Settings",
    "ShadesOfGray",
    "ShapeError",
    "StockReport",
    "TesseraError",
    "TooLarge",
    "UnknownValueError",
    "UnsupportedError",
    "UploadProgress",
    "UsageError",
    "VersionMismatch",
    "calibrate",
    "check_ranges",
    "concatenate",
    "default_fit",
    "fit",
    "fit_fourier",
    "fit_polynomial",
    "from_torch",
    "nn",
    "stack",
]


def __dir__() -> list[str]:
    return list(__all__)
