"""Train the vision transformer of benchmarks/widths.py on the 60 000 images of Fashion-MNIST.

    python benchmarks/vit_fashion.py --data /usr/share/datasets/fashion-mnist --out vit.safetensors

An hour on one core; Debian's package dataset-fashion-mnist has the data.
"""

import argparse
import gzip
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from vision_transformer import VisionTransformer

EPOCHS, BATCH, RATE, DECAY = 6, 64, 2e-3, 0.05
MEAN, STD = 0.286, 0.353


def network(weights: Path | None = None) -> VisionTransformer:
    """16 tokens of 7 x 7 pixels; with weights, trained."""
    model = VisionTransformer(side=28, patch=7, channels=1, dim=64, depth=12, heads=4)
    if weights is not None:
        model.load_state_dict(load_file(weights))
    return model.eval()


def fashion(folder: Path, name: str, start: int, stop: int, batch: int) -> list:
    """(images [batch, 1, 28, 28], labels) of rows of "train" or "t10k"."""
    read = {}
    for kind, skip in (("images-idx3", 16), ("labels-idx1", 8)):
        with gzip.open(folder / f"{name}-{kind}-ubyte.gz") as file:
            read[kind] = np.frombuffer(file.read(), np.uint8, offset=skip)
    images = torch.from_numpy(read["images-idx3"].copy()).reshape(-1, 1, 28, 28)[start:stop]
    labels = torch.from_numpy(read["labels-idx1"].astype(np.int64))[start:stop]
    pixels = (images.float() / 255 - MEAN) / STD
    return list(zip(pixels.split(batch), labels.split(batch), strict=True))


def accuracy(model: VisionTransformer, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Share of right answers."""
    with torch.no_grad():
        hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    return hits / sum(len(y) for _, y in batches)


def train(folder: Path) -> VisionTransformer:
    """AdamW with one cycle of the learning rate; images are mirrored at random."""
    torch.manual_seed(0)
    model = network().train()
    ((images, labels),) = fashion(folder, "train", 0, 60000, 60000)
    steps = EPOCHS * -(-len(images) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
    begin = time.time()
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(images)).split(BATCH):
            x = images[rows]
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(x), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(x)
        print(f"epoch {epoch}: {total / len(images):.3f}, {time.time() - begin:.0f} s", flush=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path("vit.safetensors"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = train(options.data)
    save_file(model.state_dict(), options.out)
    seen = fashion(options.data, "train", 57000, 60000, 500)
    print(f"accuracy on 3 000 training images: {accuracy(model, seen):.3f}")


if __name__ == "__main__":
    main()
