"""A small job that tests run in this process and in others."""

import multiprocessing
import os
import time
from collections import Counter
from contextlib import redirect_stderr
from pathlib import Path

import torch
from torch.nn import functional as F

import edgewise as ew
import partial
from edgewise.evaluation.evaluator import Engine
from edgewise.study.storage.storage import Storage
from zoo import build

BUDGET = ew.Budget(macs=0.7)
EVALUATIONS = 36


def losses(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


def slow_losses(outputs, targets):
    time.sleep(0.03)
    return F.cross_entropy(outputs, targets, reduction="none")


def accuracy(outputs, targets):
    return (outputs.argmax(1) == targets).float()


def make(loss=losses, recovery="batchnorm", metric=accuracy, kinds=("edge", "layer"), **options):
    """A graph and an objective: a network that must imitate itself."""
    model, args = build("residual")
    random = torch.Generator().manual_seed(0)
    x = torch.randn(96, 3, 8, 8, generator=random)
    with torch.no_grad():
        y = model(x).argmax(1)
    graph = ew.trace(model, args, granularity=kinds)
    splits = {"verify": [(x[32:64], y[32:64])], "report": [(x[64:], y[64:])]}
    objective = ew.Objective(
        [(x[:16], y[:16]), (x[16:32], y[16:32])],
        loss=loss,
        metrics={"accuracy": metric},
        recovery=ew.Recovery(recovery, None if recovery == "none" else [x[:32]]),
        **(splits | options),
    )
    return graph, objective


def make_of_part():
    """The same of a part of a model, which a function of the user's runs."""
    graph = ew.trace(partial.whole(), torch.randn(2, 3, 8, 8), part=["backbone", "neck"])
    batches = partial.batches()
    recovery = ew.Recovery("batchnorm", [x for x, _ in batches])
    run = lambda model, batch: 2 * model(batch[0])  # noqa: E731
    return graph, ew.Objective(batches, loss=losses, run=run, recovery=recovery)


def plan_of(storage, evaluations=EVALUATIONS, loss=losses):
    graph, objective = make(loss)
    study = ew.Study(graph, objective, storage, "job")
    study.run(evaluations, BUDGET, seed=3)
    return study.plan(finalists=5)


def keep_a_diary(path):
    """Write to a file what is measured and, once it is stored, kept: one line an evaluation.

    And one line once the study is open and its run begins.
    """
    evaluate, add, run, works = Engine.evaluate, Storage.add, Storage.run, []

    def line(text):
        with open(path, "a") as file:
            file.write(text + "\n")

    def write(word, record):
        line(f"{word} {record.split} {record.mask}")

    def running(self, settings):
        begun = run(self, settings)
        line("joined run")
        works.append(True)
        return begun

    def evaluating(self, masks, split="search", *, tensors=False):
        for outcome in evaluate(self, masks, split, tensors=tensors):
            # One mask is measured again to open a study, the winner again for its tensors.
            if works and not tensors:
                write("measured", outcome.evaluation)
            yield outcome

    def adding(self, evaluation, each=None):
        add(self, evaluation, each)
        write("kept", evaluation)

    Engine.evaluate, Storage.add, Storage.run = evaluating, adding, running


def measured_after_kept(diary):
    """The evaluations that were done although they were stored already."""
    kept, again = set(), []
    for line in diary.read_text().splitlines():
        word, what = line.split(" ", 1)
        if word == "kept":
            kept.add(what)
        elif what in kept:
            again.append(what)
    return again


def joined(diary):
    """How many processes have opened the study and begun to work on it."""
    return diary.read_text().splitlines().count("joined run") if diary.exists() else 0


def times_measured(diary):
    """How often each evaluation was done, by split and mask."""
    lines = diary.read_text().splitlines()
    return Counter(line.split(" ", 1)[1] for line in lines if line.startswith("measured"))


def start(url, out, diary, said=os.devnull):
    """A process of its own that does the job; what it says is in the file `said`.

    It is forked from one that has imported edgewise, which takes longer than the job.
    """
    servers = multiprocessing.get_context("forkserver")
    servers.set_forkserver_preload(["edgewise.study.study"])
    process = servers.Process(target=_work, args=(str(url), Path(out), Path(diary), said))
    process.start()
    return process


def _work(url, out, diary, said):
    torch.set_num_threads(1)
    keep_a_diary(diary)
    with open(said, "w") as file, redirect_stderr(file):
        plan_of(url, loss=slow_losses).save(out)
