"""Writes the lesion network's model card from its metrics, so that the two cannot disagree."""

from __future__ import annotations

import textwrap
from typing import Any, Final

from nn.derm.card import class_names, confusion

WIDTH: Final = 110

_INTRODUCTION = """# Model card: lesion network

Classifies a dermatoscopic photograph of a skin lesion into seven kinds. It exists to show encrypted inference
on a real task. **It is not a medical device and not for diagnosis**, nor for any other decision about a
person's health. Do not use it, or the images beside it, to find out who is pictured.

Licence of the weights: CC BY-NC 4.0, non-commercial only, with attribution: see `../LICENSE-data.md`. They
began as those of EfficientNet-Lite0, trained on ImageNet, which are under the Apache licence.

## Network

EfficientNet-Lite0 with ReLU in the place of ReLU6, for 128x128 pixels and seven classes: {parameters:,}
parameters, 2.0 million rectifiers and 0.12 thousand million products for an image. Batch normalisation is
folded into the weights, which are float16, and rounded as parties keep them: so these compute what the network
in the clear does, but for some last places. `lesion.safetensors` holds the architecture, the ranges that values
are assumed to lie in, and them.

Input: RGB, central square, 128x128 (bicubic, antialiased), colour constancy by shades of gray (Minkowski norm
of order 6, scaled to 0.7), then [0, 1] to [-1, 1]: the model says so itself. Output: seven logits as if all
classes were equally common; their softmax says how sure it would be then.

## Data

HAM10000 (Tschandl et al. 2018) and the ISIC 2018 Task 3 test set (Codella et al. 2019), a subset, cropped,
resized and split anew; citations and changes in `../LICENSE-data.md`. Train {train}, validation {val}, test
{test} images: train and validation share no lesion. The test images come from other clinics and in another
class mix, several of some lesions, so scores are lower on test than on validation. Always answering "nv"
scores {majority:.1%} on test (balanced accuracy 14.3 %).

"""

_RECIPE = """## Training

`python -m nn.derm.lesion.train --data ham10000_128_jpeg.npz --out DIR` with its defaults made these weights, on
one core that others used as well.

Random views of the training images after colour constancy (any rotation, reflection, zoom, shift, light and
contrast); logit-adjusted cross-entropy (labels smoothed by {smoothing:g}); AdamW, weight decay {decay:g}, batches
of {batch}; convolutions in bfloat16; {frozen}. Cycles, one after the other:

{cycles}

What is kept of a cycle is a running average of the weights (decay {averaging:g} a step), as it was after the one
of its last {candidates} epochs with the best balanced accuracy on validation images, four quarter turns averaged;
and of what the cycles give and the mean of their weights, with statistics of batches made anew of 2,048 views,
the one whose softmax is right most on validation images, classes alike, four quarter turns averaged
(cross-entropy {val_losses}): {kept}.

Then the blocks from the {later}th on go on by themselves, from what those before them give of {views} random views
of each photograph: sums of two photographs' values, with labels in the same parts (manifold mixup, beta distribution
of {mixing:g} and {mixing:g}), labels smoothed by {refined_smoothing:g} towards how common classes are, filters of
single channels as they were; {refined_epochs} epochs, one cycle up to {refined_rate:g}. Kept is the running average
(decay {refined_averaging:g} a step) after epoch {refined_best}, whose softmax is right most on validation images, as
above (cross-entropy before {before:.4f}, after each epoch {after}).
Other rates, other parts and none (some were stopped early), and new last layers alone had more of it.

Logits are divided by {temperature:.3f}, with which their softmax is right most on validation images, classes alike.
Seeds {seeds}; of the last step {seed} for views, {next_seed} for the rest. `--cycles DIR`, a folder with what cycles
gave, does that step alone; these weights began with the file whose SHA-256 begins with {began}.

The test images were looked at three times: for weights of the first cycle, of another run (0.667 balanced, four
turns), for what the cycles gave (0.672), and for this card. Nothing was chosen by them.

## Limits

- **Skin tone.** The photographs are of patients in Vienna and Queensland. Skin types were not recorded, and
  nearly all skin in them is light. How often it is right on dark skin is not known; networks of this kind
  have been found to be right less often there (Daneshjou et al., Science Advances 8, 2022). Colour constancy
  takes some of a skin's colour for a lamp's.
- Few examples of the rarer kinds: recall above is of {fewest} to {most} images.
- It has no answer "none of these": a photograph of anything gets one of seven names.
- One camera's artefacts (hair, rulers, ink, dark corners) may stand for a diagnosis where they came with it
  in training.
"""


def model_card(metrics: dict[str, Any]) -> str:
    """The card as Markdown; ``metrics`` is what ``metrics.json`` holds."""
    recipe, data = metrics["recipe"], metrics["images"]
    counts = [sum(row) for row in metrics["test"]["1"]["confusion_matrix"]]
    cycles = recipe["cycles"]
    blocks = cycles[0]["frozen_blocks"]
    frozen = f"the stem and the first {blocks} block{'s' * (blocks > 1)} stay as ImageNet made them"
    return "".join(
        [
            _INTRODUCTION.format(**data, parameters=metrics["parameters"], majority=max(counts) / data["test"]),
            _scores(metrics),
            _encrypted(metrics),
            _calibration(metrics),
            _ranges(metrics),
            _RECIPE.format(
                **cycles[0],
                frozen=frozen,
                cycles="\n".join(_cycle(cycle) for cycle in cycles),
                kept=recipe["kept"],
                val_losses=", ".join(f"{name} {loss:.4f}" for name, loss in recipe["val_losses"].items()),
                temperature=recipe["temperature"],
                began=recipe["began_with"][:16],
                **_refined(recipe["refinement"]),
                seeds=" and ".join(str(recipe["seed"] + number) for number in range(len(cycles))),
                fewest=min(counts),
                most=max(counts),
            ),
        ]
    )


def _refined(refinement: dict[str, Any]) -> dict[str, Any]:
    before, *after = refinement["val_losses"]
    return {
        **{name: refinement[name] for name in ("views", "mixing")},
        "refined_best": refinement["best_epoch"],
        "refined_epochs": refinement["epochs"],
        "refined_rate": refinement["rate"],
        "refined_smoothing": refinement["smoothing"],
        "refined_averaging": refinement["averaging"],
        "seed": refinement["seed"],
        "next_seed": refinement["seed"] + 1,
        "later": refinement["kept_blocks"] + 1,
        "before": before,
        "after": ", ".join(f"{loss:.4f}" for loss in after),
    }


def _cycle(cycle: dict[str, Any]) -> str:
    side = cycle["small_side"]
    small = f", of which the first {cycle['small_epochs']} see {side}x{side} pixels" if cycle["small_epochs"] else ""
    return f"- {cycle['epochs']} epochs{small}; one cycle up to {cycle['rate']:g}; best after {cycle['best_epoch']}."


def _scores(metrics: dict[str, Any]) -> str:
    lines = [
        "## Scores",
        "",
        "| images | asked | accuracy | balanced accuracy |",
        "| --- | --- | --- | --- |",
    ]
    asked = {"1": "as they are", "4": "in four quarter turns, logits averaged", "prior": "so, with the training mix"}
    for images, split in (("test", "test"), ("validation", "val")):
        for key, how in asked.items():
            found = metrics[split][key]
            lines.append(f"| {images} | {how} | {found['accuracy']:.4f} | {found['balanced_accuracy']:.4f} |")
    lines += [
        "",
        "`tessera predict` asks once, as they are, and with `--turned` for four turns, and averages. Inputs are those",
        "that it makes: what colour constancy gives is not rounded.",
        "With the training mix, the logarithm of how common classes are in it is added: more answers are right, and",
        "fewer of the rare ones.",
        "",
    ]
    for key, how in (("1", "as they are"), ("4", "four quarter turns")):
        lines += [
            f"Test images, {how} (rows: true class; columns: answered), and recall per class:",
            "",
            *confusion(metrics["test"][key]),
            "",
        ]
    return "\n".join([*lines, class_names(), "", ""])


def _encrypted(metrics: dict[str, Any]) -> str:
    """What ``encrypted.py`` has noted."""
    found, all_of_them = metrics.get("encrypted"), metrics["images"]["test"]
    if found is None:
        return ""
    images, agree = found["images"], found["agree"]
    those = (
        "test images" if images == all_of_them else f"test images whose likeliest class leads least, of {all_of_them},"
    )
    rest = "" if agree == images else f" The others are ties but for {found['lead']:.1e}."
    said = f"""Two parties, semi-honest, name the same class as the network in the clear, in float64, on {agree} of the
        {images} {those} and no logit is off by more than {found["difference"]:.1e}, most of which is that clients round
        inputs to 16 fraction bits.{rest} `tessera bench inference --model lesion --data ham10000_128_jpeg.npz
        --closest --objective traffic --memory --out FILE.jsonl` measured that, and
        `python -m nn.derm.lesion.encrypted FILE.jsonl` put it here."""
    wrapped = textwrap.fill(" ".join(said.split()), WIDTH, break_long_words=False, break_on_hyphens=False)
    return f"## Encrypted\n\n{wrapped}\n\n"


def _calibration(metrics: dict[str, Any]) -> str:
    lines = [
        "## Calibration",
        "",
        "Expected calibration error (15 bins) of the likeliest class's probability, images as they are: by how much",
        "it is off how often that class is right.",
        "",
        "| images | classes as if equally common | as they come |",
        "| --- | --- | --- |",
    ]
    for images, split in (("test", "test"), ("validation", "val")):
        found = metrics["calibration"][split]
        lines.append(f"| {images} | {found['alike']:.3f} | {found['mixed']:.3f} |")
    sure, right = metrics["calibration"]["test"]["sure"], metrics["test"]["1"]["accuracy"]
    lines += [
        "",
        f"On test images it is {sure:.0%} sure on average, and right on {right:.0%}.",
        "",
        "",
    ]
    return "\n".join(lines)


def _ranges(metrics: dict[str, Any]) -> str:
    lines = [
        "## Ranges",
        "",
        "A deep network's worst case does not fit the numbers that parties compute with, so what blocks give is",
        "assumed to lie where training and validation images lead to, three times as far at least, with these weights",
        "or those before the last step, and is compared with both ends.",
        "Largest magnitudes, of four quarter turns:",
        "",
        "| after | assumed | validation | test |",
        "| --- | --- | --- | --- |",
    ]
    for name, found in metrics["ranges"].items():
        seen = " | ".join(f"{found[split]:.2f}" for split in ("val", "test"))
        lines.append(f"| {name} | {found['assumed']:g} | {seen} |")
    out = metrics["out_of_range"]
    lines += [
        "",
        f"{out['test']} test images and {out['val']} validation images leave a range, or come near an end.",
        "",
        "",
    ]
    return "\n".join(lines)
