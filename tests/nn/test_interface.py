"""What a model says of itself: pictures become inputs as it says, and what makes no sense is refused."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from mpc.errors import EncodingError, ShapeError, UnsupportedError
from nn import (
    ArrayInput,
    BatchNorm1d,
    Classes,
    Description,
    ImageInput,
    Interface,
    Label,
    Linear,
    Model,
    Sequential,
    ShadesOfGray,
    Sigmoid,
    calibrate,
    from_torch,
)
from nn.derm.model import INTERFACE, derm_model
from nn.pictures import check_picture
from nn.preprocessing import MAX_ELEMENTS

IMAGENET = ImageInput(
    224, 224, crop=224 / 256, resampling="bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
TWO = Classes((Label("no"), Label("yes", "y")))


def pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


# -- pictures ------------------------------------------------------------------------------------------------------


def test_the_usual_normalisation_and_its_range() -> None:
    image = pixels(256, 256)
    values = IMAGENET.prepare(image)
    assert values.shape == IMAGENET.shape == (3, 224, 224)
    cropped = np.moveaxis(image[16:240, 16:240], -1, 0) / 255
    wanted = (cropped - np.array(IMAGENET.mean)[:, None, None]) / np.array(IMAGENET.std)[:, None, None]
    np.testing.assert_allclose(values, wanted, atol=1e-12)
    assert IMAGENET.low < -2.1179 < IMAGENET.low + 1e-3
    assert IMAGENET.high > 2.64 > IMAGENET.high - 1e-3
    for extreme in (0, 255):
        flat = IMAGENET.prepare(np.full((9, 9, 3), extreme, np.uint8))
        assert IMAGENET.low <= flat.min() <= flat.max() <= IMAGENET.high
        np.testing.assert_array_equal(IMAGENET.visible(flat), np.full((224, 224, 3), extreme))


@pytest.mark.parametrize(("height", "width", "box"), [(10, 40, (0, 10, 10, 30)), (40, 20, (15, 25, 0, 20))])
def test_a_crop_has_the_inputs_proportions(height: int, width: int, box: tuple[int, int, int, int]) -> None:
    image = pixels(height, width)
    top, bottom, left, right = box
    takes = ImageInput(10, 20)
    np.testing.assert_array_equal(takes.prepare(image), takes.prepare(image[top:bottom, left:right]))


def test_without_a_crop_the_whole_picture_is_stretched() -> None:
    image = pixels(10, 40)
    resized = Image.fromarray(image).resize((8, 8), Image.Resampling.LANCZOS)
    takes = ImageInput(8, 8, crop=None, resampling="lanczos")
    np.testing.assert_array_equal(takes.decode_pixels(png(image)), np.asarray(resized))


def test_the_order_of_channels() -> None:
    image = pixels(6, 6)
    rgb, bgr, grey = (ImageInput(6, 6, channels=order) for order in ("RGB", "BGR", "L"))
    np.testing.assert_array_equal(bgr.prepare(image), rgb.prepare(image)[::-1])
    assert grey.prepare(image).shape == (1, 6, 6)
    np.testing.assert_array_equal(
        grey.decode_pixels(png(image))[..., 0], np.asarray(Image.fromarray(image).convert("L"))
    )
    for takes in (rgb, bgr):
        np.testing.assert_array_equal(takes.visible(takes.prepare(image)), image)
    assert grey.visible(grey.prepare(image)).shape == (6, 6, 3)


def test_shades_of_gray_brighten_what_is_not_too_dark() -> None:
    balance = ShadesOfGray(order=1, target=0.5, darkest=0.1)
    light = np.stack([np.full((2, 2), 0.25), np.full((2, 2), 0.01)])
    np.testing.assert_allclose(balance(light)[:, 0, 0], [0.5, 0.05])


def test_pictures_are_looked_at_before_it_is_known_what_they_become(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(png(pixels(3, 5)))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    check_picture(tmp_path / "good.png")
    for name in ("bad.png", "missing.png"):
        with pytest.raises(EncodingError, match=name):
            check_picture(tmp_path / name)


# -- answers -------------------------------------------------------------------------------------------------------


def test_results_become_probabilities() -> None:
    results = np.array([[0.0, np.log(3.0)], [-800.0, 800.0]])
    np.testing.assert_allclose(TWO.probabilities(results), [[0.25, 0.75], [0, 1]])
    each = msgspec.structs.replace(TWO, activation="sigmoid").probabilities(results)
    np.testing.assert_allclose(each, [[0.5, 0.75], [0, 1]], atol=1e-12)
    np.testing.assert_array_equal(msgspec.structs.replace(TWO, activation="none").probabilities(results), results)
    for shape in ((2, 3), (2,), (1, 2, 2)):
        with pytest.raises(ShapeError, match="not 2 classes per input"):
            TWO.probabilities(np.zeros(shape))


# -- descriptions --------------------------------------------------------------------------------------------------


def test_a_description_carries_it() -> None:
    model = derm_model()
    read = Description.decode(model.describe())
    assert read.interface == INTERFACE == model.interface
    assert read.input_shape == (3, 28, 28)
    assert read.interface.bounds() == (-1.0, 1.0)
    assert read.program((1, 3, 28, 28)).digest == read.program((1, 3, 28, 28), low=-1, high=1).digest


def test_the_range_is_what_the_model_says_unless_told_otherwise() -> None:
    net = Sequential(Linear(2, 1))
    said = Interface(ArrayInput((2,), 0.0, 4.0))
    model = Model(net, {"0.weight": np.ones((1, 2)), "0.bias": np.zeros(1)}, said)
    assert model.description.program((1, 2)).nodes[0].operation.low == 0.0
    assert model.description.program((1, 2)).nodes[0].operation.high == 4.0
    assert model.description.program((1, 2), low=-3).nodes[0].operation.low == -3.0
    assert Interface().bounds() == (-1.0, 1.0)
    assert Interface().bounds(high=2.0) == (-1.0, 2.0)
    # The architecture alone does not know its input's shape here.
    assert model.description.input_shape == (2,)


def test_it_stays_with_what_is_made_of_a_model() -> None:
    torch = pytest.importorskip("torch")
    said = Interface(ArrayInput((3,), -2.0, 2.0), TWO, "For tests.")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Sigmoid())
    model = from_torch(net, example_input=torch.zeros(1, 3), interface=said)
    assert model.interface == said
    assert calibrate(model, np.zeros((4, 3)))[0].interface == said
    plain = Sequential({"a": Linear(3, 2), "n": BatchNorm1d(2), "s": Sigmoid()}).architecture()
    weights = {name: np.ones(shape) for name, shape in plain.parameters.items()}
    assert Model(plain, weights, said).fold().interface == said


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: ImageInput(0, 4), "numbers are an input"),
        (lambda: ImageInput(MAX_ELEMENTS, 1), "numbers are an input"),
        (lambda: ImageInput(-1, -4), "numbers are an input"),
        (lambda: ImageInput(2, 2, crop=0.0), "crop"),
        (lambda: ImageInput(2, 2, crop=1.5), "crop"),
        (lambda: ImageInput(2, 2, crop=float("nan")), "crop"),
        (lambda: ImageInput(2, 2, mean=()), "0 numbers as mean"),
        (lambda: ImageInput(2, 2, mean=(0.5, 0.5)), "2 numbers as mean"),
        (lambda: ImageInput(2, 2, mean=(float("nan"),)), "mean"),
        (lambda: ImageInput(2, 2, mean=(float("inf"),)), "mean"),
        (lambda: ImageInput(2, 2, std=(0.0,)), "std"),
        (lambda: ImageInput(2, 2, std=(-1.0,)), "std"),
        (lambda: ImageInput(2, 2, std=(float("nan"),)), "std"),
        (lambda: ImageInput(2, 2, std=(float("inf"),)), "std"),
        (lambda: ImageInput(2, 2, subject="x" * 101), "subject"),
        (lambda: ImageInput(2, 2, subject="a\x1b[2J"), "subject"),
        (lambda: ShadesOfGray(0, 0.5, 0.1), "shades of gray"),
        (lambda: ShadesOfGray(1000, 0.5, 0.1), "shades of gray"),
        (lambda: ShadesOfGray(6, float("nan"), 0.1), "shades of gray"),
        (lambda: ShadesOfGray(6, 0.7, 0.0), "shades of gray"),
        (lambda: ArrayInput((0,), 0, 1), "shape"),
        (lambda: ArrayInput((1,) * 40, 0, 1), "shape"),
        (lambda: ArrayInput((2,), 1, 1), "range"),
        (lambda: ArrayInput((2,), 0, float("inf")), "range"),
        (lambda: ArrayInput((2,), float("nan"), 1), "range"),
        (lambda: ArrayInput(3, 0, 1), "ArrayInput is made of .shape: Shape, low: float"),
        (lambda: ArrayInput((2,), "0", 1), "is made of"),
        (lambda: ImageInput(2, 2, mean=0.5), "ImageInput is made of .height: int"),
        (lambda: Label(5), "Label is made of"),
        (lambda: Classes(("a", "b")), r"classes are labels: Classes\(\(Label"),
        (lambda: Classes(5), "Classes is made of"),
        (lambda: Interface(notice=5), "Interface is made of"),
        (lambda: Model(Sequential(Linear(1, 1)), None, {"notice": "x"}), "says of itself is Interface"),
        (lambda: Model(Sequential(Linear(1, 1)), None, Interface({"kind": "video"})), "not a model's description"),
        (lambda: Model(Sequential(Linear(1, 1)), None, Interface(ImageInput(2.5, 2))), "not a model's description"),
        (lambda: Model(Sequential(Linear(1, 1)), None, Interface(len)), "cannot be said of a model"),
        (lambda: Label(""), "name of 1 to"),
        (lambda: Label("x" * 201), "name of 1 to"),
        (lambda: Label("a", "x" * 201), "name of 1 to"),
        (lambda: Label("a\nb"), "printable"),
        (lambda: Label("a\u202eb"), "printable"),
        (lambda: Classes(()), "classes"),
        (lambda: Classes((Label("a"),) * 65537), "classes"),
        (lambda: Interface(notice="x" * 1001), "notice"),
        (lambda: Interface(notice="a\x07"), "notice"),
    ],
)
def test_what_makes_no_sense_is_refused(make, complaint: str) -> None:
    with pytest.raises(UnsupportedError, match=complaint):
        make()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("input", "kind"), "video"),
        (("input", "height"), 29),
        (("input", "height"), 10**9),
        (("input", "height"), "28"),
        (("input", "channels"), "L"),
        (("input", "channels"), "CMYK"),
        (("input", "resampling"), "os.system"),
        (("input", "std"), [1e-300]),
        (("input", "std"), [0.5] * 10**6),
        (("input", "balance"), {"order": 10**6, "target": 0.7, "darkest": 0.1}),
        (("input", "extra"), 1),
        (("output", "labels"), [{"name": "a"}] * 10**5),
        (("output", "labels"), [{"name": "\x1b[2J"}]),
        (("output", "activation"), "exec"),
        (("notice",), "x" * 10**6),
        (("notice",), 7),
        (("secret",), 1),
    ],
)
def test_a_strangers_description_is_refused(path: tuple[str, ...], value: object) -> None:
    """Each is what the shipped model says, but for one place."""
    said = msgspec.json.decode(derm_model().describe())
    place = said["interface"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UnsupportedError) as refused:
        Description.decode(msgspec.json.encode(said))
    assert len(str(refused.value)) < 500
    assert str(refused.value).isprintable()
