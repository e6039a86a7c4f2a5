"""docs/rivals.md and its plot from the JSON of compare.py.

python benchmarks/rivals/page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).parents[2]
STAGES = {"raw": "as pruned", "recovered": "recovered", "healed": "fine-tuned"}
LATENCIES = [(1, 1), (1, 32), (2, 1), (2, 32)]  # threads, batch
SHOWN = {  # of the plot
    "edgewise-joint, linear": "edgewise, branches and widths, linear recovery",
    "edgewise-joint": "edgewise, branches and widths",
    "edgewise-joint, calibrated, linear": "the same with a calibrated loss, linear recovery",
    "edgewise-branches, calibrated": "edgewise, branches, calibrated loss",
    "edgewise-branches": "edgewise, branches",
    "greedy": "greedy, branches",
    "fastnas": "FastNAS",
    "torch-pruning-taylor": "Torch-Pruning, Taylor",
    "torch-pruning-group": "Torch-Pruning, group norm",
    "torch-pruning-l2": "Torch-Pruning, L2",
}
HEAD = """# Beside what people would use instead

ResNet-20 and ResNet-56 on CIFAR-10 (JPEG copy); 20, 40 and 60 % of the MACs removed by edgewise
(whole branches; branches and hidden widths jointly), by its built-in baselines on the same
branches ([bench](bench.md)), by Torch-Pruning 1.6.1 (coupled channels, scored again after
every hundredth), and on ResNet-20 by FastNAS of NVIDIA's Model Optimizer 0.47. Made by
`benchmarks/rivals/compare.py`,
[JSON](../benchmarks/results/rivals.json) ({machines}).

Everybody has the same 500 search images, 1 500 images to score by and 500 calibration images
(shifted and mirrored as in training); other ones for each seed. *As pruned* nothing is repaired.
*Recovered*: the statistics of all batch norms are taken from the calibration images, for
everybody alike; the rows named *linear* have `ew.Recovery("linear")` from these images instead,
which the others do not offer. Searches minimise the divergence from the unpruned network's
answers; rows named *calibrated* that of outputs after temperature scaling, as
`ew.calibrated_cross_entropy` has them. *Fine-tuned*: after that 100 steps of 100 training
images (SGD, distilled from the unpruned network), the same for everybody: little, so that it
shows what is left to do. Accuracy on 7 000 test images that had no part in anything, the mean
over seeds; in brackets the exact 95 % interval of one seed or, of several, their range.
Evaluations and seconds are those of the search: edgewise searches its three budgets in one
study, from the smallest on. Seconds are those of one process among many on a busy machine, and
marked where it had a GPU.

The number of seeds is in the table. What it shows:

- ResNet-20, branches and widths together, searched with the calibrated loss: after fine-tuning
  ahead of Torch-Pruning's best row by .1 points at 80 % of the MACs, 1.6 at 60 % (2.3 with linear
  recovery) and 6.3 at 40 % (7.6); at 60 and 40 % in each of three seeds.
- **FastNAS is the strongest of the others**, once its rules let layers have multiples of 4
  channels, of norms as well as of convolutions (by default of 32, which leaves hardly a choice
  here): 86.6, 84.1 and 80.4 % after fine-tuning at 80, 60 and 40 % of the MACs, from some 70
  evaluations in all. Branches and widths with the calibrated loss have 86.8, 84.7 and 80.3 %,
  with linear recovery 86.7, 85.4 and 81.7 %.
- **A plain loss misleads a search where much is to go.** Searched with the plain divergence,
  the same is .1, 1.8 and 2.6 points ahead in the mean, but at 40 % one of the three searches ends
  7 behind: it found masks without the last branch, which commit to nothing, and which training
  does not mend. With whole branches it is worse: at 60 % those of the least divergence (1.51 nats)
  have 37 % of the answers right and 68 % after fine-tuning, other ones a divergence of 1.68, and
  57 and 82 %. `benchmarks/calibrated.py` has [all of them](benchmarks.md).
- ResNet-56, branches and widths together, plain divergence: 88.5 % at 80 % of the MACs (88.6 % with
  linear recovery) beside 88.5 % of Torch-Pruning's best row, which says nothing, as the unpruned
  network has 88.6 %; .6 points ahead at 60 % (.9), and 4.0 at 40 % (4.5); at 60 and 40 % in each of
  three seeds. Here either loss does: with the calibrated one the same ends within .4.
- ResNet-56, whole branches: at 40 % edgewise has 82.9 % with the calibrated loss and 82.3 % with
  the plain one (133 evaluations), greedy 82.6 % (313), evolution 82.4 % (120): three seeds do not
  tell them apart, and all are ahead of Torch-Pruning's channels (81.3 %). At 80 and 60 % they are
  within half a point.
- Linear recovery is worth .2 to 21 points before fine-tuning, and -.2 to 1.4 after it.
- Whole branches are too coarse for a network of nine: at 40 % the masks are past what 100 steps of
  training mend.
- MACs are not time. Without whole branches a network takes about the share of the time that it has
  of the MACs; thinner ones take longer, those of the joint search about as long as those of
  Torch-Pruning. Who needs milliseconds should ask for them (`latency=`).
"""


def name_of(row: dict[str, Any]) -> str:
    return str(row["method"])


def merged(rows: list[dict[str, Any]]) -> Iterator[tuple[str, float, list[dict[str, Any]]]]:
    """(method, share of the MACs, rows of its seeds), in the order of the table."""
    for macs in sorted({r["macs"] for r in rows if r["method"] != "unpruned"}, reverse=True):
        some = [r for r in rows if r["macs"] == macs and r["method"] != "unpruned"]
        methods = dict.fromkeys(map(name_of, some))
        score = {
            m: mean(r["healed"]["accuracy"] for r in some if r["method"] == m) for m in methods
        }
        for method in sorted(methods, key=score.__getitem__, reverse=True):
            yield method, macs, [r for r in some if r["method"] == method]


def accuracy(rows: list[dict[str, Any]], stage: str) -> str:
    values = [row[stage]["accuracy"] for row in rows]
    low, high = (
        rows[0][stage]["accuracy_interval"] if len(rows) == 1 else (min(values), max(values))
    )
    return f"{100 * mean(values):.1f} ({100 * low:.1f}–{100 * high:.1f})"


def table(rows: list[dict[str, Any]], latency: dict[tuple[Any, ...], float]) -> Iterator[str]:
    columns = ["left", "method", "seeds", "MACs", "params", *STAGES.values(), "loss, fine-tuned"]
    columns += ["evaluations", "seconds"]
    times = [f"{t} thread{'s' * (t > 1)}, batch {b}" for t, b in LATENCIES] if latency else []
    yield f"| {' | '.join([*columns, *times])} |"
    yield "|" + "---|" * (len(columns) + len(times))
    for method, macs, same in merged(rows):
        cells = [f"{macs:.0%}", method, str(len(same))]
        cells += [f"{mean(r['reached_macs'] for r in same):.1%}"]
        cells += [f"{mean(r['params'] for r in same) / 1000:.0f} k"]
        cells += [accuracy(same, stage) for stage in STAGES]
        cells += [f"{mean(r['healed']['loss'] for r in same):.3f}"]
        cells += [f"{mean(r['evaluations'] for r in same):.0f}"]
        gpu = any(r.get("device", "cpu") != "cpu" for r in same)
        cells += [f"{mean(r['seconds'] for r in same if 'seconds' in r):.0f}{' GPU' * gpu}"]
        if latency:
            key = (method.removesuffix(", linear"), macs)
            found = [latency.get((*key, *setting)) for setting in LATENCIES]
            cells += ["" if ratio is None else f"{ratio:.2f}" for ratio in found]
        yield f"| {' | '.join(cells)} |"


def plot(record: dict[str, Any], path: Path) -> None:
    """Accuracy against MACs, a row of panels a network, a panel a stage."""
    from matplotlib.figure import Figure

    networks = sorted({row["network"] for row in record["rows"]})
    figure = Figure(figsize=(9.5, 3.2 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), 2, squeeze=False, sharex=True)
    for network, pair in zip(networks, panels, strict=True):
        rows = [row for row in record["rows"] if row["network"] == network]
        whole = mean(100 * r["raw"]["accuracy"] for r in rows if r["method"] == "unpruned")
        for stage, panel in zip(("recovered", "healed"), pair, strict=True):
            panel.axhline(whole, color="0.7", linewidth=1)
            for place, (method, label) in enumerate(SHOWN.items()):
                points = [(100 * macs, mean(100 * r[stage]["accuracy"] for r in same))
                          for name, macs, same in merged(rows) if name == method]  # fmt: skip
                if points:
                    panel.plot(*zip(*points, strict=True), "o-", color=f"C{place}", label=label)
            panel.set_title(f"{network}, {STAGES[stage]}", fontsize="medium")
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_xlabel("MACs left, %")
        pair[0].set_ylabel("accuracy, %")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, fontsize="small", frameon=False
    )
    figure.savefig(path, dpi=110)


def described(machine: dict[str, Any]) -> str:
    """A machine in a few words."""
    cores = f"{machine['processor']}, {machine['cores']} cores"
    return f"{machine['accelerator']} and {cores}" if "accelerator" in machine else cores


def page(record: dict[str, Any]) -> str:
    parts = [HEAD.format(machines="; ".join(map(described, record["machines"].values())))]
    parts.append("![Accuracy against MACs left, recovered and fine-tuned](rivals.png)\n")
    for network in sorted({row["network"] for row in record["rows"]}):
        rows = [row for row in record["rows"] if row["network"] == network]
        whole = [row for row in rows if row["method"] == "unpruned"]
        latency = {
            (t["method"], t["macs"], t["threads"], t["batch"]): t["ratio"]
            for t in record.get("latency", []) if t["network"] == network
        }  # fmt: skip
        parts.append(f"## {network}\n\nUnpruned: {accuracy(whole, 'raw')} %, "
                     f"loss {mean(r['raw']['loss'] for r in whole):.3f}.")  # fmt: skip
        if latency:
            parts[-1] += (
                " Times are shares of the unpruned network's: networks of seed 0, taking turns, on "
                f"{described(record['latency_machine'])}."
            )
        parts.append("\n" + "\n".join(table(rows, latency)) + "\n")
    return "\n".join(parts)


def main() -> None:
    record = json.loads((ROOT / "benchmarks/results/rivals.json").read_text())
    (ROOT / "docs/rivals.md").write_text(page(record))
    plot(record, ROOT / "docs/rivals.png")


if __name__ == "__main__":
    main()
