"""Files become inputs as the model says, one way for all models; what does not fit is refused, what is odd flagged."""

from __future__ import annotations

import warnings
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from mpc.errors import EncodingError, ShapeError, TesseraError, UnsupportedError, UsageError
from nn import ArrayInput, Column, ImageInput, Interface, PictureWarning, TableInput
from nn.architecture import decode_json
from nn.interface import NOTHING_SAID
from nn.reading import check_file, open_file

GREY = ImageInput(16, 16, channels="L")
PEOPLE = TableInput((Column("age", 0, 120), Column("bmi", 10, 60), Column("smokes", 0, 1)))
ROWS = np.array([[40, 22.5, 1], [71, 30.25, 0]])


def read(path: Path, takes: object, shape: tuple[int, ...] | None = None) -> np.ndarray:
    check_file(path)
    said = Interface(takes)  # type: ignore[arg-type]
    known = shape if said.input is None else said.input.shape
    return np.stack([one.values for one in open_file(path, said, known)])


def array(folder: Path, values: object) -> Path:
    np.save(folder / "x.npy", np.asarray(values))
    return folder / "x.npy"


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "x.csv").write_text(text, encoding=encoding)
    return folder / "x.csv"


def picture(folder: Path, height: int, width: int, flat: bool = False) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(np.full_like(pixels, 90) if flat else pixels).save(folder / "x.png")
    return folder / "x.png"


# -- arrays --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_a_row_and_a_batch_of_rows(tmp_path: Path, dtype: type) -> None:
    for takes in (PEOPLE, ArrayInput((3,), 0, 120)):
        np.testing.assert_array_equal(read(array(tmp_path, ROWS.astype(dtype)), takes), ROWS)
        np.testing.assert_array_equal(read(array(tmp_path, ROWS[0].astype(dtype)), takes), ROWS[:1])
    small = ROWS.astype(dtype) / 128
    np.testing.assert_array_equal(read(array(tmp_path, small[1]), None, (3,)), small[1:])
    np.testing.assert_array_equal(read(array(tmp_path, small), None), small)


def test_arrays_of_a_model_of_pictures(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3), dtype=np.uint8)
    wanted = np.stack([GREY.prepare(one) for one in pixels])
    np.testing.assert_array_equal(read(array(tmp_path, pixels), GREY), wanted)
    np.testing.assert_array_equal(read(array(tmp_path, pixels[1]), GREY), wanted[1:])
    np.testing.assert_array_equal(read(array(tmp_path, wanted), GREY), wanted)
    np.testing.assert_array_equal(read(array(tmp_path, wanted[0]), GREY), wanted[:1])


@pytest.mark.parametrize(
    ("values", "takes", "error", "words"),
    [
        (np.ones(4), PEOPLE, ShapeError, r"\(3,\), or \(N, 3\)"),
        (np.ones((3, 1)), PEOPLE, ShapeError, r"has shape \(3, 1\)"),
        (np.ones((0, 3)), PEOPLE, ShapeError, r"\(0, 3\)"),
        (np.float64(1), None, ShapeError, r"\(N, \.\.\.\)"),
        ([[40, 22.5, 1], [130, 20, 0]], PEOPLE, EncodingError, "row 1 of .*: age is not within 0 to 120"),
        ([[40, np.nan, 1]], PEOPLE, EncodingError, "bmi is not within"),
        ([[0.5, 2]], ArrayInput((2,), 0, 1), EncodingError, r"x.npy\[0, 1\] is not within \[0, 1\]"),
        ([[0.5, np.inf]], ArrayInput((2,), 0, 1), EncodingError, "is not within"),
        ([[0.5, 2]], None, EncodingError, "unless its owner says another"),
        (["a"], PEOPLE, EncodingError, "real numbers"),
        ([1j, 1, 1], PEOPLE, EncodingError, "real numbers"),
        (np.ones((1, 16, 16)) * 7, GREY, EncodingError, "outside"),
        (np.ones((16, 16)), GREY, ShapeError, r"\(1, 16, 16\), or \(N, 1, 16, 16\)"),
        (np.ones((1, 16, 16), int), GREY, EncodingError, "uint8 pixels or normalised floats"),
        (np.ones((16, 16), np.uint8), GREY, ShapeError, "RGB of shape"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, values: object, takes: object, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        read(array(tmp_path, values), takes)


@pytest.mark.parametrize("rows", [np.full((1, 3), "a"), np.full((1, 3), None), np.full((1, 3), 1j)])
def test_a_table_of_what_are_no_numbers(rows: np.ndarray) -> None:
    with pytest.raises(EncodingError, match="inputs must hold real numbers"):
        PEOPLE.check(rows, "inputs")


def test_nothing_that_a_file_says_is_run(tmp_path: Path) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        np.save(file, np.array([print], dtype=object), allow_pickle=True)
    for content in ((tmp_path / "x.npy").read_bytes(), b"", b"\x93NUMPY", b"rubbish"):
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(EncodingError, match=r"x\.npy cannot be read"):
            check_file(tmp_path / "x.npy")
    with pytest.raises(EncodingError, match="there is no file"):
        check_file(tmp_path / "none.npy")
    with pytest.raises(EncodingError, match="inputs are photographs"):
        check_file(tmp_path / "x.pt")


# -- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "age,bmi,smokes\n40,22.5,1\n71,30.25,0\n",
        'smokes,name,bmi,age\r\n1,Ann,22.5,40\r\n\r\n0,"B, C",30.25,71',
        " bmi , smokes,age\n22.5,1, 40\n3.025e1,0,71\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_are_found_by_name(tmp_path: Path, text: str, encoding: str) -> None:
    np.testing.assert_array_equal(read(table(tmp_path, text, encoding), PEOPLE), ROWS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("age,bmi,smokes\n", "no row"),
        ("age,bmi\n40,22\n", "no column called smokes: its first line names the columns"),
        ("40,22,1\n", "no column called age, bmi, smokes"),
        ("age;bmi;smokes\n40;22;1\n", "parted by commas"),
        ("age,bmi,smokes,age\n40,22,1,3\n", "two columns called age"),
        ("age,bmi,smokes\n40,22,1\n40,22\n", "row 1 of .* has 2 values"),
        ("age,bmi,smokes\n40,22,yes\n", "row 0 of .*: smokes is no number"),
        ("age,bmi,smokes\n40,,1\n", "bmi is no number"),
        ("age,bmi,smokes\n40,22,2\n", "smokes is not within 0 to 1"),
        ("age,bmi,smokes\nnan,22,1\n", "age is not within"),
        ("age,bmi,smokes\ninf,22,1\n", "age is not within"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(EncodingError, match=words) as caught:
        read(table(tmp_path, text), PEOPLE)
    assert "yes" not in str(caught.value), "values may be secret"


def test_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"age,bmi,smokes\n\xff\xfe,1,2\n")
    with pytest.raises(EncodingError, match="UTF-8"):
        PEOPLE.load(tmp_path / "x.csv")
    with pytest.raises(EncodingError, match="cannot be read"):
        PEOPLE.load(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Column("", 0, 1),
        lambda: Column(" age", 0, 1),
        lambda: Column("a\nb", 0, 1),
        lambda: Column("x" * 201, 0, 1),
        lambda: Column("a", 1, 1),
        lambda: Column("a", 0, float("nan")),
        lambda: Column("a", 0, 1e30),
        lambda: TableInput(()),
        lambda: TableInput((Column("a", 0, 1),) * 2),
        lambda: TableInput(tuple(Column(str(i), 0, 1) for i in range(20_000))),
    ],
)
def test_columns_that_make_no_sense(make: object) -> None:
    with pytest.raises(UnsupportedError):
        make()  # type: ignore[operator]


def test_columns_are_a_range_and_a_description() -> None:
    assert (PEOPLE.shape, PEOPLE.low, PEOPLE.high) == ((3,), 0, 120)
    said = Interface(PEOPLE)
    assert decode_json(msgspec.json.encode(said), Interface) == said
    assert said.bounds() == (0, 120)


# -- pictures ------------------------------------------------------------------------------------------------------


def said_of(takes: ImageInput, path: Path) -> list[str]:
    """What is said against it: the same by each way in."""
    (found,) = open_file(path, Interface(takes), takes.shape)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(takes.load(path), found.values)
        takes.prepare(np.asarray(Image.open(path)))
    assert [w.category for w in caught] == [PictureWarning] * 2 * len(found.warnings)
    assert takes.examine(path.read_bytes(), str(path)).warnings == found.warnings
    assert all(str(path) in sentence for sentence in found.warnings)
    return list(found.warnings)


@pytest.mark.parametrize(
    ("size", "flat", "crop", "complaints"),
    [
        ((16, 16), False, 1.0, []),
        ((300, 400), False, 1.0, []),
        ((40, 80), False, 1.0, []),
        ((40, 80), False, None, []),
        ((8, 8), False, 1.0, []),
        ((40, 82), False, 1.0, ["most is cut off: only the central 40 by 40"]),
        ((82, 40), False, 0.5, ["only the central 40 by 40"]),
        ((40, 82), False, None, ["is stretched to 16 by 16"]),
        ((7, 9), False, 1.0, ["7 by 7 pixels of it are enlarged to 16 by 16"]),
        ((12, 12), False, 0.5, ["6 by 6 pixels of it are enlarged"]),
        ((100, 100), True, 1.0, ["is of one colour"]),
        ((1, 1), False, 1.0, ["1 by 1 pixels of it are enlarged", "is of one colour"]),
        ((1, 1), False, None, ["1 by 1 pixels of it are enlarged", "is of one colour"]),
        ((1, 40), False, None, ["is stretched", "40 by 1 pixels of it are enlarged"]),
    ],
)
def test_odd_pictures_are_flagged(
    tmp_path: Path, size: tuple[int, int], flat: bool, crop: float | None, complaints: list[str]
) -> None:
    takes = msgspec.structs.replace(GREY, crop=crop)
    found = said_of(takes, picture(tmp_path, *size, flat=flat))
    assert len(found) == len(complaints)
    for sentence, complaint in zip(found, complaints, strict=True):
        assert complaint in sentence


def test_inputs_of_one_colour_are_flagged_as_pictures_are(tmp_path: Path) -> None:
    takes = ImageInput(4, 4, mean=(0.0, 0.5, 1.0), std=(0.25, 1.0, 2.0))
    values = takes.normalise(np.full((2, 4, 4, 3), (90, 20, 200), np.uint8))
    values[1, 2, 1, 1] += 3 / 255 / 2
    first, second = open_file(array(tmp_path, values), Interface(takes), takes.shape)
    assert [len(first.warnings), len(second.warnings)] == [1, 0]
    assert "x.npy[0] is of one colour" in first.warnings[0]
    # Of one pixel nobody can say.
    one = ImageInput(1, 1)
    assert one.examine(np.full((1, 1, 3), 9, np.uint8)).warnings == ()


# -- which file for which model ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "takes", "words"),
    [
        ("png", NOTHING_SAID.input, r"does not say how a photograph becomes its input: give it an array \(\.npy\)"),
        ("png", ArrayInput((3,), 0, 1), r"takes arrays, not photographs: give it an array \(\.npy\) of shape \(3,\)"),
        ("png", PEOPLE, r"or a table \(\.csv\) with its columns"),
        ("csv", GREY, r"names no columns: give it a photograph"),
        ("csv", None, r"names no columns: give it an array"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, kind: str, takes: object, words: str) -> None:
    path = picture(tmp_path, 20, 20) if kind == "png" else table(tmp_path, "age\n1\n")
    with pytest.raises(UsageError, match=words) as caught:
        read(path, takes)
    assert isinstance(caught.value, TesseraError)
