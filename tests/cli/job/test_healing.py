"""Training data that vary with the epoch alone, and healing from a job file."""

from __future__ import annotations

import html
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import edgewise as ew
from cli.test_cli import call, job, said  # noqa: F401
from edgewise.cli.job import healing
from edgewise.cli.job.config import read_config
from edgewise.cli.job.healing import Training
from edgewise.cli.job.job import load_outcome
from edgewise.errors import ConfigError
from edgewise.pruning.plan import Plan
from edgewise.study.study import Study

HEAL = """
[heal]
source = "train.parquet"
rows = "0:16"
batch = 4
shift = 1
mirror = true
epochs = 2
lr = 0.01
"""


def test_an_epoch_is_known_by_its_number() -> None:
    images = torch.randn(10, 3, 6, 6)
    data = Training(images, torch.arange(10), 4, shift=2, mirror=True, seed=1)
    epochs = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        epochs.append(list(data))
    first, second, again = epochs
    assert len(data) == len(first) == 3
    for (x, y), (u, v) in zip(first, again, strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)
    assert not torch.equal(first[0][0], second[0][0])
    for epoch in epochs:
        assert sorted(torch.cat([y for _, y in epoch]).tolist()) == list(range(10))
        assert all(x.shape[1:] == (3, 6, 6) for x, _ in epoch)


def test_images_are_moved_and_mirrored_and_nothing_else() -> None:
    image = torch.arange(1.0, 26.0).reshape(1, 1, 5, 5)
    data = Training(image.repeat(200, 1, 1, 1), torch.zeros(200), 200, shift=1, mirror=True)
    ((moved, _),) = data
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    allowed = {
        tuple(view[..., i : i + 5, j : j + 5].flatten().tolist())
        for view in (padded, padded.flip(-1))
        for i in range(3)
        for j in range(3)
    }
    assert {tuple(x.flatten().tolist()) for x in moved} == allowed


def test_a_job_heals_and_goes_on_where_it_stopped(
    job: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # labels are random: only on images that it trains on can it become better
    shutil.copy(job.parent / "data.parquet", job.parent / "copy.parquet")
    text = (
        HEAL.replace("train", "copy").replace("0:16", "24:40").replace("epochs = 2", "epochs = 6")
    )
    text = text.replace("lr = 0.01", "lr = 0.1\ndistill = 0.0")
    job.write_text(job.read_text() + text)
    insight, looked = Study.insight, []
    monkeypatch.setattr(Study, "insight", lambda *study: looked.append(1) or insight(*study))
    whole = call("run", job)
    assert whole.exit_code == 0, whole.output
    assert len(looked) == 1  # for the page before healing and the one after it
    folder = job.parent / "job-pruned"
    healed = load_file(folder / "healed.safetensors")
    pruned = load_file(folder / "pruned.safetensors")
    assert healed.keys() == pruned.keys()
    assert any(not torch.equal(healed[k], pruned[k]) for k in healed)
    assert "On the report split" in whole.stdout
    assert re.search(r"healing: 24/24", whole.stderr)
    assert not (folder / healing.CHECKPOINT).exists()
    assert "after healing" in (folder / "report.html").read_text()
    config, plan = read_config(job), Plan.load(folder / "plan.json")
    outcome = load_outcome(config, plan)
    assert outcome.healed is not None
    assert f"{outcome.healed.loss:.4f}" in whole.stdout
    flipped = plan.bits[::-1].translate({48: "1", 49: "0"})
    other = replace(plan, bits=flipped, edits={})
    assert load_outcome(config, other).healed is None  # another mask was healed
    assert "healed.safetensors" not in load_outcome(config, other).files
    # the lines of the report load what it names
    page, names = (folder / "report.html").read_text(), dict[str, Any]()
    assert all(name in page and (folder / name).exists() for name in outcome.files)
    assert html.escape(outcome.load) in page
    monkeypatch.syspath_prepend(job.parent)
    monkeypatch.chdir(folder)
    exec(outcome.load, names)
    assert {k: v.shape for k, v in names["small"].state_dict().items()} == {
        k: v.shape for k, v in healed.items()
    }

    train = Training.__iter__

    def stopping(self):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return train(self)

    monkeypatch.setattr(Training, "__iter__", stopping)
    results = ("plan.json", "pruned.safetensors", "evaluations.csv", "report.html")
    for name in results:
        (folder / name).unlink()
    assert call("run", job).exit_code == 130
    assert all((folder / name).exists() for name in results)
    assert (folder / healing.CHECKPOINT).exists()
    monkeypatch.setattr(Training, "__iter__", train)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as late:  # all epochs are done, the scores are not written yet
        late.setattr("edgewise.cli.job.healing.write_outcome", killed)
        resumed = call("heal", job)
    assert resumed.exit_code == 130
    assert "healing: 5/24" in resumed.stderr
    assert "healing: 4/24" not in resumed.stderr
    assert (folder / healing.CHECKPOINT).exists()
    again = call("heal", job)
    assert again.exit_code == 0, again.output
    assert "healing: 1/24" not in again.stderr
    result = load_file(folder / "healed.safetensors")
    assert all(torch.equal(result[k], v) for k, v in healed.items())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('rows = "0:16"\nbatch', 'rows = "0:20"\nbatch', "only 16 of them exist"),
        ("lr = 0.01", "lr = 0", "lr must be above 0"),
        ("lr = 0.01", 'optimizer = "adam"', "must be one of sgd, adamw"),
        (
            'source = "train.parquet"\nrows = "0:16"\nbatch',
            'rows = "10:16"\nbatch',
            "overlap the search",
        ),
    ],
)
def test_mistakes_in_heal(job: Path, old: str, new: str, words: str) -> None:  # noqa: F811
    text = job.read_text() + HEAL
    assert old in text
    job.write_text(text.replace(old, new))
    result = call("run", job, "--evaluations", "8")
    assert result.exit_code == 2, result.output
    assert words in said(result)
    assert not (job.parent / "job-pruned").exists()  # nothing was searched before


def test_heal_needs_its_section_and_a_plan(job: Path) -> None:  # noqa: F811
    result = call("heal", job)
    assert (result.exit_code, "has no [heal]" in said(result)) == (2, True)
    job.write_text(job.read_text() + HEAL)
    result = call("heal", job)
    assert (result.exit_code, "There is no plan" in said(result)) == (1, True)


def test_shifts_are_for_images(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    job.write_text(job.read_text() + HEAL)
    rows = [(torch.zeros(4, 7), torch.zeros(4))]
    monkeypatch.setattr(healing, "load_batches", lambda *_: rows)
    config = read_config(job)
    with pytest.raises(ConfigError, match="are for images"):
        healing._training(config.heal, rows)


class Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.left(x), self.right(x)


def test_what_cannot_be_taught_is_said_before_the_search(job: Path) -> None:  # noqa: F811
    job.write_text(job.read_text() + HEAL)
    graph = ew.trace(Pair(), (torch.randn(2, 4),), granularity="raw")
    config = read_config(job)
    with pytest.raises(ConfigError, match=r"this model gives a tuple\. Set distill = 0"):
        healing.require_healing(config, graph)
    assert config.heal is not None
    without = replace(config, heal=replace(config.heal, distill=0.0))
    healing.require_healing(without, graph)
