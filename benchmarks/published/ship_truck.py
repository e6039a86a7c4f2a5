"""Ships and trucks of CIFAR-10 (JPEG copy) at 33×33, and a ResNet-50 trained on them."""

import io
from pathlib import Path

import numpy as np
import pyarrow.compute
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50

SHIP, TRUCK, SIZE = 8, 9, 33
SIZES = (17,) * 10 + (33,) * 4  # of the images in each epoch: most of the training is cheap
BATCH, PEAK = 64, 1e-3  # of training: images a step, highest learning rate
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAST = torch.channels_last


def images(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    """Images [n, 3, 32, 32], normalised, and labels [n] (1 = truck) of a file, in its order."""
    table = pyarrow.parquet.read_table(folder / f"cifar10-{name}.parquet")
    wanted = pyarrow.compute.is_in(table["label"], pyarrow.array([SHIP, TRUCK]))
    table = table.filter(wanted)
    decoded = [
        np.asarray(Image.open(io.BytesIO(row["bytes"].as_py())).convert("RGB"))
        for row in table["image"]
    ]
    x = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return (x - mean) / std, torch.from_numpy(table["label"].to_numpy() == TRUCK).long()


def resized(x: Tensor, size: int = SIZE) -> Tensor:
    """Images of size × size, channels last."""
    x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return x.contiguous(memory_format=LAST)


def network(seed: int) -> nn.Module:
    """torchvision's ResNet-50 of two classes with random weights."""
    torch.manual_seed(seed)
    return resnet50(num_classes=2).to(memory_format=LAST)


def trained(folder: Path, weights: Path, seed: int) -> nn.Module:
    """The trained network in eval mode; a stopped training goes on at its last whole epoch."""
    model = network(seed)
    if not weights.exists():
        weights.parent.mkdir(parents=True, exist_ok=True)
        train(model, *images(folder, "train"), weights.with_suffix(".part"), seed)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    model.load_state_dict(load_file(weights))
    return model.eval()


def train(model: nn.Module, x: Tensor, y: Tensor, part: Path, seed: int) -> None:
    """AdamW, one cycle of the learning rate, flips and small shifts; bfloat16 products."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=1e-2, fused=True)
    steps = len(x) // BATCH
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK, total_steps=len(SIZES) * steps)
    states = {"model": model, "optimiser": optimiser, "rates": rates}
    first = 0
    if part.exists():
        saved = torch.load(part, weights_only=True)
        first = saved.pop("epoch")
        for name, state in saved.items():
            states[name].load_state_dict(state)
    for epoch in range(first, len(SIZES)):
        rng = np.random.default_rng([seed, epoch])
        order = torch.from_numpy(rng.permutation(len(x)))
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            with torch.autocast("cpu", torch.bfloat16):
                out = model(resized(_moved(x[rows], rng), SIZES[epoch]))
            loss = F.cross_entropy(out.float(), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
            if step % 20 == 0:
                print(f"epoch {epoch} step {step} of {steps}: loss {loss.item():.3f}", flush=True)
        torch.save({k: v.state_dict() for k, v in states.items()} | {"epoch": epoch + 1}, part)


def _moved(x: Tensor, rng: np.random.Generator) -> Tensor:
    """The images, half of them mirrored, all shifted alike by up to two pixels."""
    flip = torch.from_numpy(rng.random(len(x)) < 0.5)[:, None, None, None]
    x = torch.where(flip, x.flip(3), x)
    down, right = (int(v) for v in rng.integers(0, 5, 2))
    return F.pad(x, (2, 2, 2, 2))[:, :, down : down + x.shape[2], right : right + x.shape[3]]


def auc(scores: Tensor, y: Tensor) -> float:
    """Area under the ROC curve of the truck's logit less the ship's."""
    return float(roc_auc_score(y.numpy(), (scores[:, 1] - scores[:, 0]).numpy()))
