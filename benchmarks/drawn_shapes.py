"""Pictures of discs, squares and triangles with their boxes: a data set for detectors."""

import random
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

SIZE = 128  # pixels
NAMES = ("disc", "square", "triangle")
COUNTS = {"train": 640, "search": 48, "verify": 96, "report": 200}  # pictures of each split

Example = tuple[Image.Image, np.ndarray, list[int]]  # picture, boxes (left, top, right, bottom)


def _overlap(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _picture(rng: random.Random) -> Example:
    grey = np.random.default_rng(rng.randrange(2**32))
    noise = grey.normal(rng.uniform(60, 190), 25, (20, 20, 3))
    image = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((SIZE, SIZE))
    draw, boxes, labels = ImageDraw.Draw(image), [], []
    for _ in range(rng.randint(1, 3)):
        side, label = rng.randint(SIZE // 5, SIZE // 2), rng.randrange(len(NAMES))
        left, top = (rng.randrange(SIZE - side) for _ in range(2))
        box = (left, top, left + side, top + side)
        if any(_overlap(box, other) for other in boxes):
            continue
        colour = tuple(rng.randrange(256) for _ in range(3))
        if label == 0:
            draw.ellipse(box, fill=colour)
        elif label == 1:
            draw.rectangle(box, fill=colour)
        else:
            draw.polygon([(left, top + side), (left + side, top + side),
                          (left + side // 2, top)], fill=colour)  # fmt: skip
        boxes.append(box)
        labels.append(label)
    return image, np.array(boxes, dtype=np.float32), labels


@cache
def pictures(split: str) -> list[Example]:
    """The pictures of a split, the same every time; no two splits draw from one seed."""
    rng = random.Random(split)
    return [_picture(rng) for _ in range(COUNTS[split])]


def tensors(split: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(picture in 0 to 1, boxes, labels from 0) of every example."""
    return [
        (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255, torch.from_numpy(boxes),
         torch.tensor(labels))
        for image, boxes, labels in pictures(split)
    ]  # fmt: skip


def yolo_files(folder: Path) -> Path:
    """The splits for training as files that ultralytics reads; returns the path of their list."""
    for split in ("train", "verify"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number, (image, boxes, labels) in enumerate(pictures(split)):
            image.save(folder / "images" / split / f"{number:04}.png")
            middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            lines = [
                " ".join(map(str, (label, *m / SIZE, *s / SIZE)))
                for label, m, s in zip(labels, middle, sides, strict=True)
            ]
            (folder / "labels" / split / f"{number:04}.txt").write_text("\n".join(lines))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(NAMES))
    listed = folder / "shapes.yaml"
    listed.write_text(f"path: {folder}\ntrain: images/train\nval: images/verify\nnames:\n{names}")
    return listed
