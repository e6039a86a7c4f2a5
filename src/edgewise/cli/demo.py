"""The whole job in a minute: a small residual network on scikit-learn's digits."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ..latency.stopwatch import on_threads
from ..pruning.heal import Healing, heal
from ..pruning.weights import save
from ..values.files import write_text
from . import digits_net
from .digits_net import DigitsNet
from .job.config import read_config
from .job.healing import Training
from .running import run_job
from .screen import Screen

TRAIN = 800  # digits that train and calibrate; the others only measure
JOB = """# What `edgewise demo` ran. All keys: docs/config.md

[model]
source = "network.py:DigitsNet"
weights = "network.safetensors"

[data]
source = "digits/val"
mean = [0.5]
std = [0.5]
search = "0:300"
verify = "300:600"
report = "600:"

[objective]
recovery = "batchnorm"

[calibration]
source = "digits/train"
rows = "0:"

[budget]
macs = 0.5

[search]
evaluations = 90
seed = {seed}

[study]
name = "digits"
storage = "sqlite:///demo.db"

[output]
directory = "."

[heal]
source = "digits/train"
rows = "0:"
"""


def run_demo(directory: Path, screen: Screen, *, seed: int = 0) -> None:
    """Train a network, write a job for it, and run that.

    Args:
        directory: where network, images, job and results go.
        screen: told what happens.
        seed: of everything random.
    """
    # Small networks gain nothing by more threads, and where other work keeps a core busy, threads
    # that wait for each other take minutes for what one does in seconds.
    with on_threads(1):
        screen.say(f"Training a residual network of 21 convolutions on {TRAIN} digits …")
        images, labels = digits()
        leave(directory, train(images[:TRAIN], labels[:TRAIN], seed), images, labels)
        job = directory / "job.toml"
        write_text(job, JOB.format(seed=seed))
        for kept in directory.glob("demo.db*"):  # of an earlier demo
            kept.unlink()
        run_job(read_config(job), screen)


def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1 797 digits in a random order: images [n, 1, 8, 8] in -1 to 1, and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    pixels = torch.tensor(data.images * 255 / 16).round()  # as a file has them
    return (pixels / 127.5 - 1).float().unsqueeze(1)[order], torch.tensor(data.target)[order]


def train(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """A trained DigitsNet; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitsNet()
    settings = Healing(epochs=10, lr=0.1, distill=0.0)
    return heal(model, Training(images, labels, 64, seed=seed), settings=settings)


def leave(directory: Path, model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """The network, its weights and the digits as images."""
    write_text(directory / "network.py", Path(digits_net.__file__).read_text("utf-8"))
    save(model, directory / "network.safetensors")
    for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        folder = directory / "digits" / ("train" if row < TRAIN else "val") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = ((image[0] + 1) * 127.5).round().byte()
        Image.fromarray(pixels.numpy()).save(folder / f"{row:04}.png")
