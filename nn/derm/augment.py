"""Random views of a batch of lesion photographs (torch, one pass over the batch, no Python per image).

A lesion has no up and no left, so any rotation and reflection is as good as the original; the camera and its
light differ between clinics, so brightness, contrast and the gain of each colour channel do too.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F

from nn.derm.preprocess import normalise


def random_views(images: torch.Tensor, generator: torch.Generator, side: int | None = None) -> torch.Tensor:
    """One random view of each photograph: float32 ``(N, 3, H, W)`` in [0, 1], before and after; after it with
    ``side`` in the place of H and W, where that is given.
    """
    return _recoloured(_moved(images, generator, side), generator)


def network_input(images: torch.Tensor) -> torch.Tensor:
    """Photographs ``(N, 3, H, W)`` in [0, 1] as network inputs, by the ``normalise`` a clinic applies."""
    pixels = (images * 255).round_().to(torch.uint8).movedim(1, -1).numpy()
    return torch.from_numpy(normalise(pixels).astype(np.float32))


def dihedral_views(images: torch.Tensor) -> list[torch.Tensor]:
    """The eight reflections and quarter turns of a batch ``(N, C, H, H)``: exact, no interpolation."""
    turns = [torch.rot90(images, k, (2, 3)) for k in range(4)]
    return turns + [turn.flip(3) for turn in turns]


def strange_images(generator: torch.Generator) -> torch.Tensor:
    """Network inputs that are no lesions: flat colours, noise, stripes and checkerboards, ``(N, 3, 28, 28)``.

    The model card reports how far the activations leave their interval on these.
    """
    levels = torch.tensor([0.0, 0.5, 1.0])
    flat = torch.cartesian_prod(levels, levels, levels)[:, :, None, None].expand(-1, -1, 28, 28)
    noise = torch.rand(16, 3, 28, 28, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    patterns = [(rows // k + columns // k) % 2 for k in (1, 2, 4, 7, 14)] + [rows // k % 2 for k in (1, 2, 4, 14)]
    grey = torch.stack([sign * pattern + (sign < 0) for pattern in patterns for sign in (1, -1)]).float()
    colours = torch.rand(len(grey), 3, 1, 1, generator=generator)
    coloured = grey[:, None] * colours + (1 - grey[:, None]) * (1 - colours)
    return network_input(torch.cat([flat, noise, (noise > 0.5).float(), grey[:, None].expand(-1, 3, -1, -1), coloured]))


def _moved(images: torch.Tensor, generator: torch.Generator, side: int | None) -> torch.Tensor:
    """Rotate, reflect, zoom and shift; half of the rotations are quarter turns."""
    count = images.shape[0]

    def uniform(half_width: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * half_width

    quarter = torch.randint(0, 4, (count,), generator=generator) * (math.pi / 2)
    slanted = torch.rand(count, generator=generator) < 0.5
    angle = quarter + torch.where(slanted, uniform(math.pi / 4), torch.zeros(count))
    zoom = torch.exp(uniform(0.18))
    mirror = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1.0
    shift_x, shift_y = uniform(0.12), uniform(0.12)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    matrix = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, shift_x], dim=1),
            torch.stack([sine * mirror, cosine, shift_y], dim=1),
        ],
        dim=1,
    )
    height, width = (side, side) if side else images.shape[2:]
    grid = F.affine_grid(matrix, [count, 3, height, width], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _recoloured(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Scale the channels and the brightness, then the contrast about each image's mean."""
    count = images.shape[0]

    def gain(channels: int, deviation: float) -> torch.Tensor:
        return torch.exp(deviation * torch.randn(count, channels, 1, 1, generator=generator))

    lit = images * (gain(3, 0.08) * gain(1, 0.12))
    mean = lit.mean(dim=(1, 2, 3), keepdim=True)
    return ((lit - mean) * gain(1, 0.12) + mean).clamp_(0.0, 1.0)
