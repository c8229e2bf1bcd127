"""What torch has and this library has not: why, and what to do instead, by the name of the class or function."""

from __future__ import annotations

from mpc.errors import UnsupportedError
from nn.importing.blockers import SMOOTH, refused

EXPORTED = (
    "it is read from what torch.export makes of forward, which needs sizes",
    "give from_torch samples, or an example_input; where it has them, write forward so that torch.export follows it",
)
_COMPARES = (
    "it has no counterpart here",
    "use ReLU, LeakyReLU, Hardtanh or SiLU in its place, and train through it; or torch.maximum, torch.clamp",
)
_MAX = (
    "it has no counterpart here",
    "use MaxPool2d, amax or amin; or end the network before it, and compute the"
    " rest on what it returns here, a secret tensor that has max, argmax, topk and sort",
)
_SOFTMAX = (
    "it has no counterpart here",
    "use Softmax or LogSoftmax with a dim",
)
_NORM = (
    "it has no counterpart here",
    "use LayerNorm, GroupNorm, RMSNorm, InstanceNorm1d to 3d or BatchNorm1d to 3d in its place, and train through it",
)
_SMOOTH = (
    "it has no counterpart here",
    "use Sigmoid, Tanh, SiLU, GELU, Mish or Softplus in its place, and train through it; or a fit of it, as"
    " nn.importing.torch_activation.FitActivation(ts.fit(f, low, high, error))",
)
_RECURRENT = (
    "what it becomes depends on sizes, and it gives several tensors",
    "give from_torch samples: then it is imported, from a first state of zeros",
)
_ATTENTION = (
    "it has no counterpart here",
    "use MultiheadAttention, TransformerEncoderLayer or TransformerEncoder, with batch_first=True",
)
_POOL = ("it has no counterpart here", "use AvgPool1d to AvgPool3d, or a mean over named dimensions")
_LOSS = ("it is for training", "leave it out of the network: what is imported ends with its result")
_LOOKUP = ("it has no counterpart here", "use Embedding, and a mean or a sum of what it gives")
_LAZY = ("it has no weights yet", "run the module once on an example, and import what it is then")
_QUANTIZED = ("its weights are no real numbers", "import the module as it was before it was quantized")
_SCRIPTED = ("a scripted or traced module shows no Python", "give the torch.nn.Module that it was made of")
_PARALLEL = ("it is for several devices", "give the module that is inside of it: net.module")
_PARAMETRIZED = (
    "its weights are computed by a parametrization",
    "make them plain first: torch.nn.utils.parametrize.remove_parametrizations",
)
_CHOOSING = (
    "it chooses by values, which has no counterpart in an imported network",
    "write it with relu or clamp; or end the network before it, and compute the rest on what it returns here, a secret"
    " tensor that can be compared and takes numpy.where",
)
_RANDOM = ("it draws random numbers", "draw them once, and keep them as a buffer; or leave them out in evaluation")
_INDEX = (
    "it puts values into a part of a tensor", "write it as a sum of products with masks that are buffers"
)  # fmt: skip
_TYPE = ("it changes the type of numbers", "leave it out: here all are real numbers of one kind")
_SUM = ("it has no counterpart here", "write a mean over named dimensions, times their size")
_CONTAINER = ("it is a container, and no layer", "call what it holds, one after the other")

_KINDS: dict[tuple[str, str], str] = {
    EXPORTED: """
        index_put scatter diagonal
        prelu max min batch_norm GLU glu tanhshrink softmin scaled_dot_product_attention conv1d conv3d conv_transpose1d
        conv_transpose2d index_select gather where masked_fill masked_fill_ getitem chunk split unbind narrow select
        transpose swapaxes swapdims movedim t expand expand_as stack roll flip unflatten sum sqrt rsqrt
        to float double type_as sign argmax argmin logsumexp expm1 log1p log2 log10 exp2 one_hot eq ne lt le gt ge prod
        var std unfold repeat repeat_interleave einsum tril triu embedding Embedding
        topk sort argsort grid_sample affine_grid
    """,
    _COMPARES: """
        RReLU rrelu rrelu_
    """,
    _MAX: """
        FractionalMaxPool2d FractionalMaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d boolean_dispatch
    """,
    _SOFTMAX: """
        Softmax2d Softmin AdaptiveLogSoftmaxWithLoss gumbel_softmax
    """,
    _NORM: """
        SyncBatchNorm LocalResponseNorm CrossMapLRN2d local_response_norm
    """,
    _SMOOTH: """
        Tanhshrink tan atan arctan asinh sinh cosh sinc
    """,
    _RECURRENT: """
        RNN LSTM GRU RNNCell LSTMCell GRUCell RNNBase RNNCellBase
    """,
    _ATTENTION: """
        Transformer TransformerDecoder TransformerDecoderLayer multi_head_attention_forward
    """,
    _POOL: """
        LPPool1d LPPool2d LPPool3d lp_pool1d lp_pool2d lp_pool3d
    """,
    _LOSS: """
        L1Loss MSELoss CrossEntropyLoss NLLLoss NLLLoss2d BCELoss BCEWithLogitsLoss CTCLoss KLDivLoss HuberLoss
        SmoothL1Loss SoftMarginLoss MarginRankingLoss MultiMarginLoss MultiLabelMarginLoss
        MultiLabelSoftMarginLoss HingeEmbeddingLoss CosineEmbeddingLoss TripletMarginLoss
        TripletMarginWithDistanceLoss PoissonNLLLoss GaussianNLLLoss LinearCrossEntropyLoss
    """,
    _LOOKUP: """
        EmbeddingBag embedding_bag
    """,
    _LAZY: """
        LazyLinear LazyConv1d LazyConv2d LazyConv3d LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d
        LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d LazyInstanceNorm1d LazyInstanceNorm2d LazyInstanceNorm3d
    """,
    _QUANTIZED: """
        QuantStub DeQuantStub quantize_per_tensor dequantize
    """,
    _SCRIPTED: """
        ScriptModule RecursiveScriptModule TopLevelTracedModule TracedModule
    """,
    _PARALLEL: """
        DataParallel DistributedDataParallel
    """,
    _PARAMETRIZED: """
        ParametrizedLinear ParametrizedConv2d ParametrizationList
    """,
    _CHOOSING: """
        floordiv floor_divide remainder mod floor ceil round
    """,
    _RANDOM: """
        rand randn rand_like randn_like randint randint_like randperm bernoulli bernoulli_ normal normal_
        uniform_ multinomial
    """,
    _INDEX: """
        setitem index_put_ scatter_ copy_ fill_ zero_
    """,
    _TYPE: """
        half bfloat16 int long bool type cuda cpu
    """,
    _SUM: """
        PairwiseDistance pairwise_distance cdist
    """,
    _CONTAINER: """
        ModuleList ModuleDict ParameterList ParameterDict Container Module
    """,
}

REMEDIES: dict[str, tuple[str, str]] = {name: said for said, names in _KINDS.items() for name in names.split()}


def not_here(name: str) -> UnsupportedError:
    """The refusal of a class or function of that name."""
    plain = name if name in REMEDIES else name.removesuffix(".default").removesuffix("_")
    if plain not in REMEDIES and plain.startswith("Parametrized"):
        plain = "ParametrizedLinear"
    return refused(*REMEDIES.get(plain, ("it has no counterpart here", SMOOTH)))
