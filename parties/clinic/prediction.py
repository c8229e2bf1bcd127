"""One photograph's way to an answer, step by step, as the page shows it.

Everything that knows the photograph is this process and the browser beside it.  Out of it goes x - a, the same to every
party: a is a mask that the dealer made for this run alone, uniform in the field, so that x - a is uniform whatever x
is.  Each party has its own share of a, and only all of them together could take it off; the dealer knows a and is never
sent x - a.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.rings.field import FieldArray
from nn.derm import CLASS_CODES, CLASS_NAMES, class_probabilities, normalise
from nn.derm.preprocess import decode_pixels
from parties.client.async_client import AsyncClient
from parties.client.report import RunReport
from parties.tally import total

NAME = "the photograph"
"""What errors call it: a file's name may say whose it is."""

# Of a field element of 61 bits, the highest 8: uniform elements make uniform bytes.
_TOP_BYTE = 61 - 8

Step = dict[str, Any]


async def predict(client: AsyncClient, model_name: str, photograph: bytes) -> AsyncGenerator[Step, None]:
    """The steps, as they are done: ``seen``, ``prepared``, ``masked``, ``answered``.

    Raises EncodingError for what is no photograph, and what ``AsyncClient.prepare`` and ``finish`` raise.  Whoever
    stops listening gives the run up.
    """
    # In a thread: a large photograph takes a while, and pings are to be answered meanwhile.
    values = normalise(await asyncio.to_thread(decode_pixels, photograph, NAME))
    yield {"step": "seen", "image": _picture((values + 1) / 2 * 255)}
    model = await client.model(model_name)
    prepared = await client.prepare(model(client.share(values[None], low=-1, high=1, name=NAME)))
    try:
        yield {"step": "prepared", "seconds": prepared.offline_seconds, "bytes": prepared.offline_bytes}
        yield {
            "step": "masked",
            "mask": _picture(_top_bytes(prepared.input_masks[0][0])),
            "masked": _picture(_top_bytes(prepared.masked_inputs()[0][0])),
        }
        logits = await client.finish(prepared)
    finally:
        await client.release(prepared)
    probabilities = class_probabilities(np.asarray(logits))[0]
    report = client.last_run
    yield {
        "step": "answered",
        "classes": [
            {"code": code, "name": name, "probability": float(p)}
            for code, name, p in zip(CLASS_CODES, CLASS_NAMES, probabilities, strict=True)
        ],
        "run": {**report.to_dict(), "here": _here(report)} if report is not None else {},
    }


def _here(report: RunReport) -> dict[str, dict[str, int]]:
    """Bytes of payload that this process has sent and received for the run, by phase."""
    return {
        phase: {
            "sent": report.sent(phase, report.client).payload,
            "received": total({link: sent for link, sent in links.items() if link[1] == report.client}).payload,
        }
        for phase, links in report.links.items()
    }


def _top_bytes(elements: FieldArray) -> npt.NDArray[np.float64]:
    return (elements >> np.uint64(_TOP_BYTE)).astype(np.float64)


def _picture(channels: npt.NDArray[np.float64]) -> str:
    """(3, H, W) in [0, 255] as RGB bytes, row by row, in base64."""
    return base64.b64encode(np.moveaxis(channels, 0, -1).round().astype(np.uint8).tobytes()).decode("ascii")
