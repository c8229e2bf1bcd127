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

import numpy as np
import numpy.typing as npt

from mpc.errors import UsageError
from mpc.rings.field import FieldArray
from nn.interface import Classes
from nn.preprocessing import ImageInput, as_rgb
from parties.client.async_client import AsyncClient
from parties.client.remote_model import RemoteModel
from parties.client.report import RunReport
from parties.pages.page import Step
from parties.tally import total

NAME = "the photograph"
"""What errors call it: a file's name may say whose it is."""

# Of a field element of 61 bits, the highest 8: uniform elements make uniform bytes.
_TOP_BYTE = 61 - 8


async def predict(client: AsyncClient, model_name: str, photograph: bytes) -> AsyncGenerator[Step, None]:
    """The steps, as they are done: ``seen``, ``prepared``, ``masked``, ``answered``.

    Raises EncodingError for what is no photograph, and what ``AsyncClient.prepare`` and ``finish`` raise.  Whoever
    stops listening gives the run up.
    """
    model = await client.model(model_name)
    takes, classes = what_it_says(model)
    # In a thread: a large photograph takes a while, and pings are to be answered meanwhile.
    values, warnings = await asyncio.to_thread(takes.examine, photograph, NAME)
    yield {
        "step": "seen",
        "image": _picture(takes.visible(values)),
        "width": takes.width,
        "height": takes.height,
        "balanced": takes.balance is not None,
        "warnings": list(warnings),
    }
    result = model(client.share(values[None], low=takes.low, high=takes.high, name=NAME))
    classes.check(result.shape)
    prepared = await client.prepare(result)
    try:
        yield {"step": "prepared", "seconds": prepared.account.offline_seconds, "bytes": prepared.account.offline_bytes}
        yield {
            "step": "masked",
            "mask": _picture(as_rgb(_top_bytes(prepared.input_masks[0][0]), takes.channels)),
            "masked": _picture(as_rgb(_top_bytes(prepared.masked_inputs()[0][0]), takes.channels)),
        }
        logits = await client.finish(prepared)
    finally:
        await client.release(prepared)
    report = client.last_run
    probabilities = classes.probabilities(np.asarray(logits))[0]
    yield {
        "step": "answered",
        "classes": [
            {"code": label.code or label.name, "name": label.name, "probability": float(p)}
            for label, p in zip(classes.labels, probabilities, strict=True)
        ],
        "activation": classes.activation,
        "notice": model.description.interface.notice,
        "run": {**report.to_dict(), "here": _here(report)} if report is not None else {},
    }


def what_it_says(model: RemoteModel) -> tuple[ImageInput, Classes]:
    """How a photograph becomes the model's input, and what its results are called.

    Raises UsageError for a model that does not say, which no page can be made of.
    """
    takes, classes = model.image_input, model.description.interface.output
    if classes is None:
        raise UsageError(
            f"the model {model.name!r} does not say what its results are called: use tessera predict, or have its owner"
            " upload it with interface=Interface(output=Classes(...))"
        )
    return takes, classes


def _here(report: RunReport) -> dict[str, dict[str, int]]:
    """Bytes of payload that this process has sent and received for the run, by phase."""
    return {
        phase: {
            "sent": report.sent(phase, report.client).payload,
            "received": total({link: sent for link, sent in links.items() if link[1] == report.client}).payload,
        }
        for phase, links in report.links.items()
    }


def _top_bytes(elements: FieldArray) -> npt.NDArray[np.uint8]:
    return (elements >> np.uint64(_TOP_BYTE)).astype(np.uint8)


def _picture(pixels: npt.NDArray[np.uint8]) -> str:
    """(H, W, 3) as bytes, row by row, in base64."""
    return base64.b64encode(pixels.tobytes()).decode("ascii")
