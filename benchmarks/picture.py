"""The demo's picture: what the clinic sees, what each party holds, what comes back; and what that noise adds up to.

Every pixel of the noise is data of the run that is shown: x - a is what the client sent to every party, and the mask a
is that run's.  A party's share of the image is x - a plus its share of a at the first party, and its share of a at the
others; the mask is split here once more, as the dealer does it, since nobody but the dealer has all of its shares.
What is shown as their sum is their sum, decoded: the photograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mpc import fixed_point, sharing
from mpc.errors import unwritable
from mpc.rings import field
from mpc.rings.field import FieldArray
from nn.preprocessing import ImageInput

SCALE = 2
"""Everything is drawn in units of half a logical pixel, for sharp text on any screen."""
TILE = 168
GAP = 28
MARGIN = 36
HEAD = 118
FOOT = 56
RESULT = 330
ADDED = 104
"""The side of a tile in the sum below the rows."""
STRIP = ADDED + 60
SHOWN = 3
"""Parties drawn at most; further ones hold the same kind of noise."""

_PAPER, _INK, _SOFT, _FAINT = (250, 249, 246), (32, 34, 38), (110, 113, 120), (228, 226, 220)
_BAR, _WINNER = (186, 196, 208), (38, 99, 158)


@dataclass(frozen=True)
class Exhibit:
    """One image's row: its file, true class, the probabilities that came back, and what hid it (3, 28, 28).

    ``fraction_bits`` are the encoded image's, ``takes`` what the model says of its input.
    """

    path: Path
    label: int
    probabilities: npt.NDArray[np.float64]
    masked: FieldArray
    mask: FieldArray
    fraction_bits: int
    takes: ImageInput


def draw(exhibits: Sequence[Exhibit], parties: int, classes: Sequence[str], notice: str, path: Path) -> None:
    """Write the picture as PNG.  Raises ConfigurationError if ``path`` cannot be written."""
    shown = min(parties, SHOWN)
    width = 2 * MARGIN + (1 + shown) * (TILE + GAP) + GAP + RESULT
    height = HEAD + len(exhibits) * (TILE + GAP) + STRIP + FOOT
    canvas = Image.new("RGB", (width * SCALE, height * SCALE), _PAPER)
    page = _Page(canvas)
    _headings(page, parties, shown)
    for row, exhibit in enumerate(exhibits):
        _row(page, HEAD + row * (TILE + GAP), exhibit, parties, shown, classes)
    _sum(page, HEAD + len(exhibits) * (TILE + GAP), exhibits[0], parties, shown)
    page.text(
        MARGIN, height - FOOT + 12,
        f"{notice}  Images: HAM10000 and ISIC 2018, CC BY-NC 4.0.", 13, _SOFT,
    )  # fmt: skip
    try:
        canvas.save(path, format="PNG", optimize=True)
    except OSError as error:
        raise unwritable(f"the picture {path}", error) from error


def _headings(page: _Page, parties: int, shown: int) -> None:
    page.text(MARGIN, 24, "Each prediction, and what everybody saw of it", 24, _INK)
    top = HEAD - 34
    page.text(MARGIN, top, "the clinic sees", 15, _INK)
    for party in range(shown):
        more = f" (of {parties})" if parties > shown and party == shown - 1 else ""
        page.text(MARGIN + (1 + party) * (TILE + GAP), top, f"party {party} holds{more}", 15, _INK)
    page.text(MARGIN + (1 + shown) * (TILE + GAP) + GAP, top, "what comes back, to the clinic alone", 15, _INK)


def _row(page: _Page, top: int, exhibit: Exhibit, parties: int, shown: int, classes: Sequence[str]) -> None:
    with Image.open(exhibit.path) as photograph:
        page.tile(MARGIN, top, photograph.convert("RGB"))
    for party, share in enumerate(image_shares(exhibit, parties)[:shown]):
        page.tile(MARGIN + (1 + party) * (TILE + GAP), top, as_colours(share))
    left = MARGIN + (1 + shown) * (TILE + GAP) + GAP
    winner = int(exhibit.probabilities.argmax())
    verdict = "the true class" if winner == exhibit.label else f"true class: {classes[exhibit.label]}"
    page.text(left, top - 2, classes[winner], 19, _WINNER)
    page.text(left, top + 24, verdict, 13, _SOFT)
    step = (TILE - 52) / len(classes)
    for k, (name, p) in enumerate(zip(classes, exhibit.probabilities, strict=True)):
        y = top + 52 + k * step
        colour = _WINNER if k == winner else _BAR
        page.text(left, y, name, 12, _INK if k == winner else _SOFT)
        page.bar(left + 140, y + 2, 140, float(p), colour)
        page.text(left + 288, y, f"{p:.0%}", 12, _INK if k == winner else _SOFT)


def _sum(page: _Page, top: int, exhibit: Exhibit, parties: int, shown: int) -> None:
    """Noise plus noise is the photograph: of the first row, once."""
    held = f"the noise that {'both parties' if parties == 2 else f'all {parties} parties'} hold"
    said = f"Adding up {held} gives the photograph, as the network takes it; any fewer give noise"
    page.text(MARGIN, top, said, 15, _INK)
    top += 32
    shares = image_shares(exhibit, parties)
    left, middle = MARGIN, top + ADDED / 2 - 15
    for party, share in enumerate(shares[:shown]):
        if party:
            page.text(left + 10, middle, "+", 24, _INK)
            left += 36
        page.tile(left, top, as_colours(share), ADDED)
        left += ADDED
    if parties > shown:
        page.text(left + 10, middle, "+ ...", 24, _INK)
        left += 52
    page.text(left + 12, middle, "=", 24, _INK)
    page.tile(left + 40, top, as_photograph(field.total(np.stack(shares), 0), exhibit), ADDED)


def image_shares(exhibit: Exhibit, parties: int) -> list[FieldArray]:
    """Additive shares of the encoded image, as the parties hold them: together, and only together, they are it."""
    shares = sharing.share(exhibit.mask, parties)
    return [field.add(shares[0], exhibit.masked), *shares[1:]]


def as_colours(share: FieldArray) -> Image.Image:
    """The top 8 of an element's 61 bits as brightness: (3, H, W) to an RGB image."""
    return Image.fromarray(np.ascontiguousarray((share >> np.uint64(53)).astype(np.uint8).transpose(1, 2, 0)))


def as_photograph(raw: FieldArray, exhibit: Exhibit) -> Image.Image:
    """Field elements (C, H, W), read as the encoded image, to an RGB image, as the network sees it."""
    return Image.fromarray(exhibit.takes.visible(fixed_point.decode(raw, exhibit.fraction_bits)))


class _Page:
    """Drawing in logical pixels."""

    def __init__(self, canvas: Image.Image) -> None:
        self._canvas = canvas
        self._draw = ImageDraw.Draw(canvas)

    def text(self, x: float, y: float, text: str, size: int, colour: tuple[int, int, int]) -> None:
        self._draw.text((x * SCALE, y * SCALE), text, colour, ImageFont.load_default(size * SCALE))

    def tile(self, x: int, y: int, image: Image.Image, side: int = TILE) -> None:
        size = (side * SCALE, side * SCALE)
        self._canvas.paste(image.resize(size, Image.Resampling.NEAREST), (x * SCALE, y * SCALE))

    def bar(self, x: float, y: float, length: float, part: float, colour: tuple[int, int, int]) -> None:
        for share, tint in ((1.0, _FAINT), (part, colour)):
            corner = ((x + max(length * share, 1)) * SCALE, (y + 10) * SCALE)
            self._draw.rounded_rectangle((x * SCALE, y * SCALE, *corner), 2 * SCALE, tint)
