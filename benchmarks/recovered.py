"""ResNet-56 masks measured after batch-norm recovery: data to compare surrogates on.

The 500 masks of resnet56_masks.npz (1 to 10 of 27 branches removed), whose losses there are those
of the raw network, measured on the same 1 000 test images (CIFAR-10, JPEG copy) after the
batch-norm statistics were estimated again from 1 000 training images, shifted and mirrored as in
training.

    python benchmarks/recovered.py --data ../shared/data
    python benchmarks/surrogates.py --masks benchmarks/results/resnet56_recovered.npz

Finished evaluations are kept in --storage; run the same command again to resume.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import edgewise as ew
from branches import data
from edgewise.cli.job.sources import load_loss, load_metrics
from surrogates import branches, resnet56
from widths import cropped


def study_of(options: argparse.Namespace) -> ew.Study:
    """The study whose search split are the images of the raw measurements."""
    model = resnet56()
    model.load_state_dict(load_file(options.data / "resnet56_cifar10.safetensors"))
    images = torch.cat([x for x, _ in data(options.data, "train", 0, 1000)])
    objective = ew.Objective(
        data(options.data, "test", 0, 1000),
        loss=load_loss("cross_entropy"),
        metrics=load_metrics(["accuracy"]),
        recovery=ew.Recovery("batchnorm", list(cropped(images, 0).split(500))),
    )
    return ew.Study(branches(model), objective, options.storage, "recovered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--storage", default="sqlite:///recovered.db")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/resnet56_recovered.npz")
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    masks = np.load(options.data / "resnet56_masks.npz")["masks"]
    with study_of(options) as study:
        found = study.evaluate(study.graph.mask(bits=row) for row in masks)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        options.out,
        masks=masks,
        loss=np.array([e.loss for e in found]),
        accuracy=np.array([e.metrics["accuracy"] for e in found]),
        seconds=np.array([e.seconds for e in found]),
    )
    print(f"{len(found)} masks, {sum(e.seconds for e in found) / len(found):.2f} s each")


if __name__ == "__main__":
    main()
