"""How edgewise's own time and memory grow: units of a search, stored evaluations, operators.

Losses are made up (what each unit takes away adds up, and so do some pairs), so that nothing but
tracing, storing, fitting and proposing takes time:

- searches of 60 evaluations for 70 % of the MACs of residual networks of 100 to 2 000 branches, of
  a DenseNet-264 with branches and layers, and of a decoder of 48 layers with heads and MLP slices;
- a study of 100 000 stored evaluations of 60 units: opened, and its plan;
- tracing of residual networks of up to 20 000 operators: seconds and peak memory of a process.

    python benchmarks/growth.py --out benchmarks/results/growth.json
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.search import Ask, Space, answered, search
from edgewise.study.fitting import searching
from edgewise.study.storage import schema
from edgewise.surrogates.searcher import searcher
from machine import describe

EVALUATIONS, SHARE, WIDTH = 60, 0.7, 8
STORED, BRANCHES = 100_000, 30


class Residual(nn.Module):
    """Branches of two operators, each added to what is before it."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return x


def residual(branches: int) -> ew.Graph:
    return ew.trace(Residual(branches).eval(), (torch.randn(2, WIDTH),))


def densenet() -> ew.Graph:
    from torchvision.models import DenseNet

    model = DenseNet(growth_rate=8, block_config=(6, 12, 64, 48), num_init_features=16)
    return ew.trace(model.eval(), (torch.randn(2, 3, 32, 32),), granularity=("edge", "layer"))


def decoder() -> ew.Graph:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=48,
        num_attention_heads=16, num_key_value_heads=16,
    )  # fmt: skip
    model, kinds = LlamaForCausalLM(config).eval(), ("branch", "layer", "heads", "hidden")
    ids = torch.randint(0, 64, (2, 8))
    return ew.trace(model, (), {"input_ids": ids}, granularity=kinds, slices=16)


def losses(graph: ew.Graph) -> Callable[[ew.Mask], float]:
    """A made-up loss: what units and pairs of neighbours add."""
    rng, units = np.random.default_rng(0), len(graph.units)
    alone, pairs = rng.gamma(0.5, 2.0 / units, units), rng.normal(0, 1.0 / units, units - 1)

    def loss(mask: ew.Mask) -> float:
        bits = np.array(mask.bits, float)
        return float(np.exp(0.3 * (alone @ bits + pairs @ (bits[1:] * bits[:-1]))))

    return loss


def searched(name: str, make: Callable[[], ew.Graph]) -> dict:
    """A search of EVALUATIONS: its own seconds, and those of a proposal."""
    start = time.process_time()
    graph = make()
    traced = time.process_time() - start
    space = Space(graph, ew.Budget(macs=int(SHARE * ew.cost(graph).macs)))
    loss, proposed = losses(graph), [0.0, 0]

    def answer(ask: Ask) -> list[Evaluation]:
        if ask.origin == "proposed":
            proposed[0] = proposed[0] or time.process_time()
            proposed[1] += len(ask.masks)
        return [Evaluation(str(m), "search", loss(m), samples=64) for m in ask.masks]

    start = time.process_time()
    answered(search(space, searching(searcher("auto")), seed=0, limit=EVALUATIONS), answer)
    end = time.process_time()
    return {
        "network": name, "units": len(graph.units), "traced_seconds": round(traced, 1),
        "search_seconds": round(end - start, 1), "proposed": proposed[1],
        "seconds_a_proposal": round((end - proposed[0]) / max(proposed[1], 1), 2),
        "peak_mib": peak(),
    }  # fmt: skip


def stored() -> dict:
    """A study of STORED evaluations: seconds to open it, and of its plan."""
    graph = residual(BRANCHES)
    batches = [(torch.randn(8, WIDTH), torch.zeros(8))]
    objective = ew.Objective(batches, lambda outputs, _: outputs.square().mean(1))
    loss, rng = losses(graph), np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/study.db"
        study = ew.Study(graph, objective, url)
        budget = ew.Budget(macs=int(SHARE * ew.cost(graph).macs))
        study.run(EVALUATIONS, budget, seed=0)
        known = {e.mask for e in study.evaluations}
        bits = (rng.random((STORED, len(graph.units))) < 0.3).astype(int).tolist()
        masks = {str(m): m for m in (graph.mask(bits=b) for b in bits)}
        same = {"study": study.storage.study, "split": "search", "samples": 8, "metrics": "{}",
                "seconds": 0.1, "status": "ok", "origin": "sampled"}  # fmt: skip
        rows = [{"mask": m, "loss": loss(masks[m]), **same} for m in masks.keys() - known]
        study.storage.database.write(lambda c: c.execute(schema.EVALUATIONS.insert(), rows))
        start = time.process_time()
        study = ew.Study(graph, objective, url)
        opened = time.process_time() - start
        plan = study.plan()
        planned = time.process_time() - start - opened
        size = Path(folder, "study.db").stat().st_size
    return {
        "stored": STORED, "units": len(graph.units), "file_mib": round(size / 2**20),
        "open_seconds": round(opened, 1), "plan_seconds": round(planned, 1),
        "removed": plan.bits.count("1"), "peak_mib": peak(),
    }  # fmt: skip


def traced(operators: int) -> dict:
    """A residual network of so many operators: three a branch."""
    start = time.process_time()
    graph = residual(operators // 3)
    seconds = round(time.process_time() - start, 1)
    return {
        "operators": len(graph.vertices), "units": len(graph.units), "trace_seconds": seconds,
        "peak_mib": peak(),
    }  # fmt: skip


def peak() -> int:
    """The most memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


ROWS: dict[str, Callable[[], dict]] = {
    **{f"{n} branches": lambda n=n: searched(f"{n} branches", lambda: residual(n))
       for n in (100, 250, 500, 1000, 2000)},
    "densenet264": lambda: searched("densenet264", densenet),
    "decoder of 48 layers": lambda: searched("decoder of 48 layers", decoder),
    "stored": stored,
    **{f"{n} operators": lambda n=n: traced(n) for n in (2_000, 6_000, 20_000)},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/growth.json"))
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--row", choices=ROWS, help="one row, in this process")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.row:
        print(json.dumps(ROWS[options.row]()))
        return
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else {}
    for name in options.only:
        command = [sys.executable, __file__, "--row", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(name, done.stderr[-1500:], flush=True)
            continue
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, rows[name], flush=True)
        text = json.dumps({"machine": describe(), "rows": rows}, indent=1)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
