"""Photographs become network inputs: sizes, orientation, metadata, and every kind of bad input."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from mpc.errors import EncodingError, ShapeError
from nn import pictures
from nn.derm import load_image, normalise, prepare, samples
from nn.derm.preprocess import load_pixels
from nn.preprocessing import ImageInput


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_normalise_has_the_shape_range_and_brightness_it_says() -> None:
    pixels = photograph(28, 28)
    one = normalise(pixels)
    assert one.shape == (3, 28, 28)
    assert one.dtype == np.float64
    assert one.min() >= -1.0
    assert one.max() <= 1.0
    batch = normalise(np.stack([pixels, photograph(28, 28, 1)]))
    assert batch.shape == (2, 3, 28, 28)
    np.testing.assert_array_equal(batch[0], one)


def test_normalise_takes_out_the_colour_of_the_light() -> None:
    pixels = (photograph(28, 28) // 2 + 40).astype(np.uint8)
    tinted = np.round(pixels * np.array([1.0, 0.8, 0.6])).astype(np.uint8)
    assert np.abs(normalise(pixels) - normalise(tinted)).max() < 0.03


def test_flat_images_are_finite() -> None:
    for value in (0, 1, 128, 255):
        flat = normalise(np.full((28, 28, 3), value, dtype=np.uint8))
        assert np.isfinite(flat).all()
        assert np.ptp(flat) == 0
    assert normalise(np.zeros((28, 28, 3), dtype=np.uint8)).max() == -1.0


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 4), (2, 2, 28, 28, 3), (3, 28, 28), (0, 28, 3)])
def test_normalise_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="RGB"):
        normalise(np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_normalise_refuses_other_types(dtype: type) -> None:
    with pytest.raises(EncodingError, match="uint8"):
        normalise(np.zeros((28, 28, 3), dtype=dtype))


def test_prepare_takes_pixels_of_any_size_and_normalised_inputs() -> None:
    pixels = photograph(28, 28)
    np.testing.assert_array_equal(prepare(pixels), normalise(pixels))
    assert prepare(photograph(301, 450)).shape == (3, 28, 28)
    assert prepare(photograph(1, 1)).shape == (3, 28, 28)
    ready = normalise(pixels)
    np.testing.assert_array_equal(prepare(ready), ready)
    assert prepare(ready.astype(np.float32)).dtype == np.float64


def test_prepare_crops_the_central_square() -> None:
    wide = np.zeros((28, 60, 3), dtype=np.uint8)
    wide[:, 16:44] = photograph(28, 28)
    np.testing.assert_array_equal(prepare(wide), normalise(wide[:, 16:44]))


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((3, 28, 28), dtype=np.uint8), ShapeError, r"\(H, W, 3\)"),
        (np.zeros((0, 28, 3), dtype=np.uint8), ShapeError, r"\(H, W, 3\)"),
        (np.zeros((28, 28), dtype=np.uint8), ShapeError, r"\(H, W, 3\)"),
        (np.zeros((28, 28, 3)), ShapeError, r"\(3, 28, 28\)"),
        (np.zeros((1, 3, 28, 28)), ShapeError, r"\(3, 28, 28\)"),
        (np.full((3, 28, 28), np.nan), EncodingError, "NaN"),
        (np.full((3, 28, 28), -np.inf), EncodingError, "infinity"),
        (np.full((3, 28, 28), 1.01), EncodingError, "outside"),
        (np.zeros((28, 28, 3), dtype=np.int32), EncodingError, "int32"),
        (np.full((3, 28, 28), "x"), EncodingError, "uint8"),
        ([[0]], EncodingError, "list"),
    ],
)
def test_prepare_refuses_everything_else(image: np.ndarray, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        prepare(image)


def test_png_is_lossless_and_jpeg_close(tmp_path: Path) -> None:
    pixels = photograph(28, 28)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), normalise(pixels))
    smooth = np.asarray(Image.fromarray(photograph(4, 4)).resize((450, 300), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(tmp_path / "b.jpg", quality=95)
    assert np.abs(load_image(tmp_path / "b.jpg") - prepare(smooth)).max() < 0.05


def test_orientation_is_applied_and_metadata_ignored(tmp_path: Path) -> None:
    pixels = photograph(28, 28)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    exif[0x010E] = "a name"
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_pixels(tmp_path / "turned.png"), np.rot90(pixels, -1))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    name = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    grey = Image.fromarray(photograph(30, 30)[..., 0])
    picture = Image.fromarray(np.asarray(grey).astype(np.uint16) << 8) if mode == "I;16" else grey.convert(mode)
    picture.save(name)
    pixels = load_pixels(name)
    assert pixels.shape == (28, 28, 3)
    assert np.ptp(pixels) > 50


def test_transparency_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (load_pixels(tmp_path / "clear.png") == 255).all()


def test_files_that_are_no_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncodingError, match="there is no image"):
        load_image(tmp_path / "missing.png")
    with pytest.raises(EncodingError, match="cannot be read"):
        load_image(tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(EncodingError, match="not a JPEG or PNG"):
        load_image(tmp_path / "text.png")
    Image.fromarray(photograph(28, 28)).save(tmp_path / "a.gif")
    with pytest.raises(EncodingError, match="not a JPEG or PNG"):
        load_image(tmp_path / "a.gif")
    Image.fromarray(photograph(64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    with pytest.raises(EncodingError, match="damaged"):
        load_image(tmp_path / "cut.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(EncodingError, match="1,000 pixels"):
        load_image(tmp_path / "whole.png")
    with pytest.raises(EncodingError, match="1,000 pixels"):
        prepare(photograph(64, 64))
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    with pytest.raises(EncodingError, match="100 bytes"):
        load_image(tmp_path / "whole.png")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 1_000_000
    with pytest.raises(EncodingError, match="40,000,000 pixels"):
        load_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "I;16", "RGB", "CMYK", "YCbCr"])
@pytest.mark.parametrize("orientation", [1, 2, 6, 7])
def test_pictures_are_decoded_strip_by_strip_as_at_once(
    monkeypatch: pytest.MonkeyPatch, mode: str, orientation: int
) -> None:
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    grey = Image.fromarray(photograph(50, 37)[..., 0].astype(np.uint16) * 200)
    source = grey if mode == "I;16" else Image.fromarray(photograph(50, 37)).convert("RGBA").convert(mode)
    if mode == "RGBA":
        source.putalpha(Image.fromarray(photograph(50, 37)[..., 1]))
    exif = Image.Exif()
    exif[0x112] = orientation
    options: dict[str, Any] = {"transparency": 3} if mode == "P" else {}
    file = io.BytesIO()
    source.save(file, kind, exif=exif, **options)
    takes = ImageInput(20, 24)
    monkeypatch.setattr(pictures, "_STRIP", 1 << 20)
    whole = takes.decode_pixels(file.getvalue())
    for strip in (1, 37 * 7):
        monkeypatch.setattr(pictures, "_STRIP", strip)
        assert np.array_equal(takes.decode_pixels(file.getvalue()), whole)
    with Image.open(file) as picture:
        upright = ImageOps.exif_transpose(picture).size
    assert upright == ((37, 50) if orientation < 5 else (50, 37))


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "threads"), [("RGBA", 1), ("CMYK", 1), ("RGBA", 4)])
def test_no_picture_takes_more_memory_than_is_said(tmp_path: Path, mode: str, threads: int) -> None:
    """However many are decoded, one after the other, in however many threads: each has a heap of its own."""
    side = math.isqrt(pictures.MAX_PIXELS)
    kind, options = "PNG" if mode == "RGBA" else "JPEG", {} if mode == "RGBA" else {"progressive": True}
    Image.new(mode, (side, side), (10, 20, 30, 128)).save(tmp_path / "large", kind, **options)
    script = (
        "import resource, sys; from nn import pictures; from nn.preprocessing import ImageInput\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "threads = int(sys.argv[2])\n"
        "with ThreadPoolExecutor(threads) as pool:\n"
        "    list(pool.map(ImageInput(28, 28).load, [sys.argv[1]] * threads))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "large"), str(threads)]
    printed = subprocess.run(command, capture_output=True, check=True, timeout=120, cwd=Path(__file__).parents[2])
    assert int(printed.stdout) <= pictures.MAX_MEMORY


def test_shipped_samples_carry_no_metadata() -> None:
    for sample in samples():
        with Image.open(sample.path) as picture:
            assert picture.size == (28, 28)
            assert picture.mode == "RGB"
            assert not picture.info
            assert not picture.getexif()
