"""Writes docs/benchmarks.md from the JSON files that benchmarks left: one section a file.

python benchmarks/benchmarks_page.py benchmarks/results docs/benchmarks.md

A file that is not there has no section, and a figure that a file does not have is a dash.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Table = tuple[list[str], list[list[str]]]

HEAD = """# Benchmarks

The most telling figures of every benchmark, each made from the JSON that its script wrote; the
JSON has all the others. Seconds are those of a machine that may have had other work: compare the
figures of a table with each other, not with those of another.
"""


@dataclass(frozen=True)
class Section:
    """A benchmark: the name of its JSON file, its script and what was measured, and its table."""

    name: str
    title: str
    measured: str
    command: str
    table: Callable[[Row], Table]


def figure(value: Any, digits: int = 3) -> str:
    """A number as a page shows it; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by what they have in common, in the order in which it first appears."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return found


def known(rows: Iterable[Row], key: str) -> list[Any]:
    return [row[key] for row in rows if row.get(key) is not None]


def mean(rows: Iterable[Row], key: str) -> float | None:
    values = known(rows, key)
    return statistics.fmean(values) if values else None


def median(rows: Iterable[Row], key: str) -> float | None:
    values = known(rows, key)
    return float(statistics.median(values)) if values else None


def largest(rows: Iterable[Row], key: str) -> float | None:
    return max(known(rows, key), default=None)


def columns(rows: Iterable[Row], **named: str) -> Table:
    """A table of rows as they are: headings by key."""
    body = [[figure(row.get(key)) for key in named] for row in rows]
    return [text.replace("_", " ") for text in named.values()], body


def engine(data: Row) -> Table:
    named = {"masks": "masks", "recovery": "recovery", "times_over_zeroed": "over zeroed weights",
             "times_over_skipped": "over skipped branches",
             "times_over_skipped_tuned": "over skipped branches, tuned"}  # fmt: skip
    return columns(data["ratios"], **named)


def executors(data: Row) -> Table:
    named = {"serial": "one process, seconds", "ray": "two workers, seconds", "ratio": "ratio"}
    return columns(data["blocks"], **named)


def exhaustive(data: Row) -> Table:
    body = []
    for (method,), rows in grouped(data["rows"], "method").items():
        worst = max(row["loss"] - row["best"] for row in rows)
        spent = f"{figure(median(rows, 'evaluations'), 0)}"
        close = sum(bool(row.get("close")) for row in rows)
        body.append([method, spent, f"{close} of {len(rows)}", figure(worst)])
    return ["method", "evaluations, median", "found", "worst excess loss"], body


def branches(data: Row) -> Table:
    body = []
    keys = ("recovery", "removed_branches", "method", "limit")
    for (recovery, removed, method, _), rows in grouped(data["rows"], *keys).items():
        spent, seeds = figure(mean(rows, "evaluations"), 0), str(len(rows))
        right = percent(mean([row["metrics"] for row in rows], "accuracy"))
        losses = [figure(mean(rows, "loss")), right]
        body.append([recovery, str(removed), method, seeds, spent, *losses])
    heads = ["recovery", "removed", "method", "seeds", "masks, mean", "mean loss", "accuracy"]
    return heads, sorted(body, key=lambda row: int(row[1]))


def calibrated(data: Row) -> Table:
    body = []
    for row in data["rows"]:
        cells = [str(row["removed"]), str(row["masks"]), row["loss"], figure(row["correlation"], 2)]
        stages = [percent(row[stage]["accuracy"]) for stage in ("recovered", "healed")]
        body.append([*cells, *stages])
    heads = ["removed", "masks", "loss", "rank correlation with accuracy"]
    return [*heads, "its best mask, recovered", "fine-tuned"], body


def widths(data: Row) -> Table:
    body = []
    budgets = sorted({row["macs"] for row in data["rows"] if row["macs"] < 1}, reverse=True)
    methods = grouped(data["rows"], "network", "method", "recovery")
    for (network, method, recovery), rows in methods.items():
        by_budget = grouped(rows, "macs")
        cells = [percent(mean(by_budget.get((b,), []), "report_accuracy")) for b in budgets]
        if method != "unpruned":
            body.append([network, method, figure(recovery), *cells])
    return ["network", "method", "recovery", *(f"MACs {percent(b)}" for b in budgets)], body


def recovery(data: Row) -> Table:
    kinds = list(dict.fromkeys(row["recovery"] for row in data["rows"]))
    body = []
    for (network, mask), rows in grouped(data["rows"], "network", "mask").items():
        by_kind = grouped(rows, "recovery")
        cells = [percent(mean(by_kind.get((kind,), []), "report_accuracy")) for kind in kinds]
        body.append([network, mask, percent(mean(rows, "macs")), *cells])
    return ["network", "mask", "MACs", *(f"accuracy, {kind}" for kind in kinds)], body


def recovery_cost(data: Row) -> Table:
    heads = ["network", "input", "examples", "batch-norm, s", "linear, s", "ratio"]
    return heads, [
        [
            r["network"], " × ".join(map(str, r["input"])), figure(r["examples"]),
            figure(r["seconds"]["batchnorm"], 2), figure(r["seconds"]["linear"], 2),
            figure(r["ratio"], 1),
        ]
        for r in data["rows"]
    ]  # fmt: skip


def latency(data: Row) -> Table:
    body = []
    for network, found in data["networks"].items():
        for (limit,), rows in grouped(found["rows"], "limit").items():
            over = percent(largest(rows, "over_limit"))
            body.append([network, percent(limit), percent(mean(rows, "measured")), over])
    return ["network", "limit", "measured, mean", "furthest over the limit"], body


def width_latency(data: Row) -> Table:
    rows = data["rows"]
    body = [[percent(r["macs"]), percent(r["time"]), figure(r["seconds"], 2)] for r in rows]
    return ["MACs", "time", "seconds"], body


def milp(data: Row) -> Table:
    body = []
    for (network, surrogate), rows in grouped(data["sizes"], "network", "surrogate").items():
        proved = sum(bool(row.get("optimal")) for row in rows)
        seconds, gap = figure(median(rows, "seconds"), 2), percent(largest(rows, "gap"))
        proof = f"{proved} of {len(rows)}"
        body.append([network, str(rows[0]["units"]), surrogate, proof, seconds, gap])
    return ["network", "units", "surrogate", "proved", "seconds, median", "largest gap"], body


def rules(data: Row) -> Table:
    body = []
    for kind, found in data["brute force"].items():
        agree = f"{found['agree']} of {found['networks']}"
        body.append(
            [f"small random networks: {kind}", "–", agree, figure(found["seconds a network"], 2)]
        )
    for (name,), rows in grouped(data["sizes"], "rules").items():
        proved = sum(bool(row["optimal"]) for row in rows)
        proof = f"{proved} of {len(rows)} proved"
        body.append(
            [f"ResNet-56: {name}", str(rows[0]["units"]), proof, figure(median(rows, "seconds"), 2)]
        )
    return ["rules", "units", "right", "seconds"], body


def surrogates(data: Row) -> Table:
    sizes = sorted({row["masks"] for row in data["accuracy"]})
    body = []
    for (name,), rows in grouped(data["accuracy"], "surrogate").items():
        by_size = grouped(rows, "masks")
        cells = [figure(mean(by_size.get((size,), []), "spearman")) for size in sizes]
        body.append([name, *cells])
    return ["surrogate", *(f"{size} masks" for size in sizes)], body


def stopping(data: Row) -> Table:
    body = []
    for (patience,), rows in grouped(data["rows"], "patience").items():
        spent, regret = figure(mean(rows, "evaluations"), 1), figure(mean(rows, "regret"), 4)
        body.append(["none" if patience is None else str(patience), spent, regret])
    return ["patience", "evaluations, mean", "regret, mean"], body


def speed(data: Row) -> Table:
    body = []
    for row in data["rows"]:
        times = [row.get(f"{name}_milliseconds", {}) for name in ("liveness", "cost")]
        cells = [figure(time.get("median")) for time in times]
        traced = figure(row.get("tracing_seconds"))
        body.append([row["network"], figure(row.get("units")), traced, *cells])
    return ["network", "units", "tracing, s", "liveness, ms", "cost, ms"], body


def exports(data: Row) -> Table:
    body = []
    for row in data["rows"]:
        sizes = row.get("sizes", {})
        right = [found for found in sizes.values() if isinstance(found, float)]
        worst = f"{max(right):.0e}" if right else figure(None)
        missed = [size for size, found in sizes.items() if not isinstance(found, float)]
        cells = [f"{len(right)} of {len(sizes)}", worst, ", ".join(missed) or figure(None)]
        body.append([row["name"], *cells])
    return ["network", "sizes at which the file is right", "largest difference", "missed"], body


def own_class(data: Row) -> Table:
    body = []
    for row in data["loading"]:
        times = [f"{row[key]:.2f} s" for key in ("make", "load", "load by tracing")]
        told = (
            f"made in {times[0]}; plan and weights loaded in {times[1]}, by tracing in {times[2]}"
        )
        body.append([row["model"], told])
    found = data["generating"]
    before, after = found["parameters"]
    body.append(["smollm2, parameters", f"{before:,} unpruned, {after:,} pruned"])
    for what in ("prompt", "new"):
        rates = found[f"{what} tokens a second"]
        told = f"{rates['unpruned']} unpruned, {rates['pruned']} pruned ({found['ratio'][what]} ×)"
        body.append([f"smollm2, {what} tokens a second", told])
    return ["what", "measured"], body


def detectors(data: Row) -> Table:
    heads = ["detector", "method", "MACs", "params", "time", "before", "pruned",
             "batch-norm statistics", "healed"]  # fmt: skip
    body = []
    for row in data["rows"]:
        names = [row["detector"], row["method"]]
        if "error" in row:
            body.append([*names, row["error"], *["–"] * 6])
            continue
        stages = (row[stage]["map"] for stage in ("before", "pruned", "recovered", "healed"))
        shares = (percent(row[key]) for key in ("macs", "params", "latency"))
        body.append([*names, *shares, *(figure(value) for value in stages)])
    return heads, body


def free(data: Row) -> Table:
    body = []
    for row in data["rows"]:
        told = "; ".join(f"{what}: {count:,}" for what, count in row["at other sizes"].items())
        body.append([row["kind"], str(row["networks"]), told])
    return ["random networks", "how many", "comparisons at other sizes"], body


def accelerator(data: Row) -> Table:
    body = []
    for found in data["latency"]:
        for row in found["rows"]:
            what = f"{found['network']}, {found['batch']} at a time, at most {row['limit']:.0%}"
            body.append([what, f"takes {percent(row['measured'])}"])
    for row in data["search"]:
        ways = {"loop": "by the loop", "one by one": "by the engine"}
        times = {words: row.get(f"{way}, ms a mask") for way, words in ways.items()}
        cell = ", ".join(f"{figure(v, 1)} {words}" for words, v in times.items() if v is not None)
        kind = {"none": "no"}.get(row["recovery"], row["recovery"])
        body.append([f"{row['network']}, {kind} recovery, ms a mask", cell])
    for row in data["healing"]:
        kind = {"no": "float32"}.get(row["precision"], row["precision"])
        what = f"{row['network']}, fine-tuning {row['batch']} at a time in {kind}, ms a step"
        body.append([what, figure(row["ms a step"], 1)])
    return ["what", "measured"], body


REPORTS = {"wikitext": "WikiText-2", "brown": "Brown"}


def reported(mine: list[Row], key: str, text: str, number: str = "perplexity") -> str:
    """The mean over seeds of what report text tells, and its range."""
    told = [row.get(key, {}).get(f"report {text}") for row in mine]
    found = [one[number] for one in told if one]
    if not found:
        return "–"
    shown = percent if number == "agreement" else lambda value: figure(value, 1)
    ends = f" [{shown(min(found))}, {shown(max(found))}]" if len(found) > 1 else ""
    return f"{shown(statistics.mean(found))}{ends}"


def language(data: Row) -> Table:
    """Means over seeds, and the range of perplexities."""
    texts = [k for k in REPORTS if all(f"report {k}" in row["pruned"] for row in data["rows"])]
    keys = {"pruned": "", "recovered": ", recovered"}
    lines = []
    shares = sorted(data["rows"], key=lambda row: row["share"])
    theirs = {share: mean(rows, "search") for (share, method), rows
              in grouped(shares, "share", "method").items() if method == "evolution"}  # fmt: skip
    for (share, method), mine in grouped(shares, "share", "method").items():
        values = (percent(mean(mine, "share_removed")), str(len(mine)),
                  figure(mean(mine, "evaluations"), 0), figure(mean(mine, "search")),
                  figure(mean(mine, "verify")))  # fmt: skip
        told = [reported(mine, key, text) for key in keys for text in texts]
        agreed = [reported(mine, key, "wikitext", "agreement") for key in keys]
        lines.append([method, *values, *told, *agreed, soon(mine, theirs.get(share))])
    names = ["method", "removed", "seeds", "evaluations", "search", "verify"]
    ends = [REPORTS[text] + end for end in keys.values() for text in texts]
    agreements = [f"same next token{end}" for end in keys.values()]
    return [*names, *ends, *agreements, "evaluations until evolution's mean search loss"], lines


def language_texts(data: Row) -> Table:
    """A line a method and text that it searched and was recovered on."""
    names, lines = {"both": "both", **REPORTS}, []
    for (method, text), mine in grouped(data["rows"], "method", "text").items():
        told = [reported(mine, key, k) for key in ("pruned", "recovered") for k in REPORTS]
        lines.append([method, names[text], str(len(mine)), *told])
    columns = [f"{name}{end}" for end in ("", ", recovered") for name in REPORTS.values()]
    return ["method", "searched on", "seeds", *columns], lines


def soon(rows: list[Row], loss: float | None) -> str:
    """After how many evaluations searches had a loss, from the first to the last to have it."""
    histories = [row.get("history", []) for row in rows]
    found = [next((n for n, best in h if loss and best <= loss), math.inf) for h in histories]
    return f"{min(found):.0f} to {max(found):.0f}" if max(found) < math.inf else "–"


def growth(data: Row) -> Table:
    body = []
    for name, row in data["rows"].items():
        told = [f"{key.replace('_', ' ')} {value:,}" for key, value in row.items()
                if key not in ("network", "stored", "operators")]  # fmt: skip
        what = f"{row['stored']:,} stored evaluations" if "stored" in row else name
        body.append([what, ", ".join(told)])
    return ["what", "measured"], body


def masks(data: Row) -> Table:
    """Mean regret by limit. Methods that know no limit have one run, whose history says it."""
    lines = []
    for (name, removed), same in grouped(data["rows"], "table", "removed").items():
        best = min(min([r["best"], *(loss for _, loss in r["curve"])]) for r in same)
        limits = sorted({r["limit"] for r in same})
        for (method,), mine in grouped(same, "method").items():
            known, cells = {r["limit"] for r in mine}, []
            for limit in limits:
                at = limit if limit in known else min((k for k in known if k > limit), default=0)
                found = [
                    min((loss for spent, loss in r["curve"] if spent <= limit), default=math.inf)
                    for r in mine if r["limit"] == at
                ]  # fmt: skip
                mean = statistics.mean(found) / best - 1 if found else math.inf
                cells.append(f"{percent(mean) if math.isfinite(mean) else '–'} of {limit}")
            seeds = len({r["seed"] for r in mine})
            lines.append([f"{name}, {removed} removed", method, str(seeds), *cells])
    most = max(map(len, lines))
    lines = [line + [""] * (most - len(line)) for line in lines]
    heads = ["masks", "method", "seeds", *["regret after so many evaluations"] * (most - 3)]
    return heads, lines


def language_speed(data: Row) -> Table:
    body = []
    for what, rows in grouped(data["rows"], "processor", "sequences", "masks").items():
        plain = rows[0]["seconds_a_mask"]
        for row in rows:
            times = f"{plain / row['seconds_a_mask']:.2f} ×"
            errors = (figure(row[name], 4) for name in ("median_error", "error"))
            cells = [row["way"], figure(row["seconds_a_mask"]), times, *errors]
            body.append([*map(str, what), *cells])
    errors = ["error, nats, median", "at most"]
    return ["processor", "sequences", "masks", "way", "seconds a mask", "as fast", *errors], body


def language_own_time(data: Row) -> Table:
    body = [
        [row["precision"], str(row["evaluations"]), str(row["masks"]), figure(row["seconds"], 0),
         figure(row["measuring_seconds"], 0), percent(row["own"])]
        for row in data["rows"]
    ]  # fmt: skip
    heads = ["measured in", "evaluations", "masks", "CPU seconds", "the engine's", "own"]
    return heads, body


def language_calibration(data: Row) -> Table:
    body = []
    for row in data["rows"]:
        cells = [f"{row['sequences']} × {row['length']}", figure(row["seconds"], 0)]
        for split, after in row["recovered"].items():
            before, whole = data["pruned"][split], data["unpruned"][split]
            share = (before - after) / (before - whole)
            cells.append(f"{whole:.2f}, {before:.2f}, {after:.2f}: {share:.0%}")
        body.append(cells)
    return ["fitted to", "CPU seconds", "verify, 128 tokens", "test, 512 tokens"], body


def language_serving(data: Row) -> Table:
    body = []
    for row in data["rows"]:
        cells = [row["what"], row["checkpoint"], percent(row["params"]), percent(row["macs"])]
        for key in ("prompt_tokens_a_second", "new_tokens_a_second"):
            before, after = row[key]["unpruned"], row[key]["pruned"]
            cells.append(f"{after:.0f} of {before:.0f}, {after / before:.2f} ×")
        body.append(cells)
    return ["without", "checkpoint", "params", "MACs", "prompt", "new tokens"], body


RESNET, DATA = "ResNet-56 on CIFAR-10", " --data ../shared/data"
SECTIONS = (
    Section("engine", "Evaluation engine", f"How many times as fast {RESNET} is measured under "
            "many masks as by running the model once for each.", f"engine.py{DATA}", engine),
    Section("executors", "Executors", "The same masks in one process and by two workers of Ray, "
            "in turns.", f"executors.py{DATA}", executors),
    Section("exhaustive", "Exhaustive search", "Methods on ResNet-20, of which every mask of 9 "
            "branches is known: how often each finds one within 2 % of the best loss.",
            f"exhaustive.py{DATA}", exhaustive),
    Section("masks", "Searches on tables of masks", "The tables of [masks.md](masks.md): branches "
            "of ResNet-20 and ResNet-56, halves of ResNet-56's widths, branches of a 12-layer "
            "vision transformer and sub-blocks of SmolLM2-135M; what was not measured is emulated. "
            "The loss of the best mask found above the best known, after as many examples as so "
            "many evaluations see. Shuffled: a control, whose units are told to lie elsewhere.",
            "masks/regret.py resnet20 resnet56 resnet56-halves vit smollm2", masks),
    Section("branches", "Whole branches", f"8 and 13 of 27 residual branches of {RESNET} removed, "
            "loss and accuracy on images that took no part; edgewise and evolution see as many "
            "images as 120 and 250 masks on all of them.", f"branches.py{DATA}", branches),
    Section("calibrated", "Which loss to search with", "All sets of 1 to 6 of the 9 branches of "
            "ResNet-20 on CIFAR-10, by their divergence from the unpruned answers as they are, and "
            "after temperature scaling; accuracy of the set that either prefers, on images that "
            "took no part.", f"calibrated.py{DATA}", calibrated),
    Section("widths", "Widths", "Accuracy on images that took no part at several budgets of MACs, "
            "without training; means over seeds.", f"widths.py resnet56{DATA}", widths),
    Section("recovery", "Recovery", "The same masks with each kind of training-free repair; "
            "accuracy on images that took no part.", f"recovery.py{DATA}", recovery),
    Section("recovery_cost", "Cost of recovery", "One mask that removes one of the first branches "
            "and a part of every hidden width, with linear and with batch-norm recovery in turns, "
            "on as many search as calibration examples.",
            "recovery_cost.py", recovery_cost),
    Section("growth", "Growth", "edgewise's own processor seconds and memory with made-up losses: "
            "searches of 60 evaluations, a large study, and tracing.", "growth.py", growth),
    Section("language", "A language model", "SmolLM2-135M, 60 attention and MLP branches: a "
            "share of the decoder's parameters removed, all methods seeing the same text; losses "
            "in nats a token on search and verify text, perplexity on the test text of WikiText-2 "
            "(respaced) and on other texts of the Brown corpus, as pruned and with linear recovery "
            "once from 6 144 other tokens; how often the likeliest next token is that of the "
            "unpruned model on WikiText-2; means over seeds, and ranges. FLAP as pruned has biases "
            "of its own, which linear recovery does not give; rows of widths: "
            "[widths.py](../benchmarks/language/widths.py).",
            f"language/compare.py{DATA}/text --recover", language),
    Section("language_texts", "A language model, by text", "The same without 26.7 % of the "
            "decoder's parameters, searched and recovered on one text, on the other, or on half "
            "of each: perplexity on both, means over seeds, and ranges.",
            f"language/compare.py{DATA}/text --layers 8 --text both --recover", language_texts),
    Section("language_speed", "A language model, speed", "The same model on sequences of 128 "
            "tokens: loops that skip what is removed, and the engine.",
            f"language/speed.py{DATA}/text", language_speed),
    Section("language_own_time", "A language model, a search's own time", "A search of 200 "
            "evaluations over its 60 sub-blocks, on eight sequences of 128 tokens, by edgewise's "
            "engine.", f"language/own_time.py{DATA}/text", language_own_time),
    Section("language_calibration", "A language model, recovered", "A quarter of the same model "
            "removed, recovered once on so many sequences of WikiText-2: nats unpruned, pruned and "
            "recovered on other text of it, and the share of the lost ones that came back.",
            f"language/calibration.py{DATA}/text", language_calibration),
    Section("language_serving", "A language model, tokens a second", "The same model, pruned, "
            "saved and loaded by transformers: tokens a second of a prompt of 512 and of 64 that "
            "follow, beside the unpruned one's in turns; batch 1.",
            f"language/serving.py{DATA}/text", language_serving),
    Section("latency", "Latency budgets", "Time of the pruned model for each limit, as shares of "
            "the unpruned one's.", "latency.py", latency),
    Section("width_latency", "Time and MACs", "ResNet-50 with all widths cut alike.",
            "width_latency.py", width_latency),
    Section("accelerator", "On a GPU", "Latency budgets kept by the pruned model, as shares of "
            "the unpruned one's; masks measured by a loop over prepared networks and by the "
            "engine, which prepares them too; steps of fine-tuning, data coming from main memory.",
            "accelerator.py", accelerator),
    Section("milp", "Exact solver", "Masks of least prediction with a proof, within "
            "a time limit.", "milp.py", milp),
    Section("rules", "Rules", "Solutions under rules for what may go: the same as by brute force "
            "on small networks, with a proof within ten seconds on ResNet-56, branches and widths.",
            "milp.py --rules --networks 40", rules),
    Section("surrogates", "Surrogates", "Spearman's correlation of predicted and measured losses "
            f"of masks of {RESNET} that were not seen, by the number of random masks that were.",
            f"surrogates.py{DATA}", surrogates),
    Section("surrogates_recovered", "Surrogates, with recovery", "The same for losses measured "
            "after recovery.", "surrogates.py --masks benchmarks/results/resnet56_recovered.npz",
            surrogates),
    Section("stopping", "Stopping early", "Searches that end when nothing better is expected, "
            "on ResNet-20 as in the exhaustive search.", "stopping.py", stopping),
    Section("exports", "Exports", "Networks pruned by a random mask and exported to ONNX, run by "
            "onnxruntime in another batch, with one example, and at another length or image size "
            "where the unpruned network runs there; the JSON has the reason of each miss.",
            "exports.py", exports),
    Section("own_class", "The model's own class", "Three networks without a quarter of their "
            "branches, loaded by edits and by tracing; SmolLM2-135M without a quarter of its "
            "decoder beside the unpruned one, in turns, batch 1, after a prompt of 512 tokens.",
            "own_class.py", own_class),
    Section("detectors", "Detectors", "Detectors trained on drawn shapes, all but their heads "
            "pruned, by shares of the whole: mean average precision (COCO's) on pictures that "
            "nothing was chosen by, as pruned, with batch-norm statistics taken again, and after "
            "an epoch of training; the time of one picture beside the unpruned network's, in "
            "turns.", "detectors.py", detectors),
    Section("free", "Sizes that stay free", "Random networks under four random masks each, pruned "
            "and masked compared at three other sizes.", "free.py", free),
    Section("speed", "Speed", "Tracing a model, and liveness and cost of one mask.", "speed.py",
            speed),
)  # fmt: skip


def section(part: Section, data: Row) -> str:
    """What was measured, the table, and where it comes from."""
    heads, body = part.table(data)
    lines = [heads, ["---"] * len(heads), *body]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    machine = data.get("machine", {})
    card = f"{machine['accelerator']}, " if "accelerator" in machine else ""
    words = (
        f"{card}{machine.get('processor', '–')}, {figure(machine.get('cores'))} cores, "
        f"threads used: {figure(machine.get('threads'))}, torch {machine.get('torch', '–')}"
    )
    source = f"[JSON](../benchmarks/results/{part.name}.json)"
    script = part.command.split()[0]
    made = (
        f"`python benchmarks/{part.command}` ([script](../benchmarks/{script}), {source}; {words})"
    )
    return f"## {part.title}\n\n{part.measured}\n\n{table}\n\n{made}"


def page(results: Path) -> str:
    """The whole page, of the files that are there."""
    files = [(part, results / f"{part.name}.json") for part in SECTIONS]
    parts = [section(part, json.loads(path.read_text())) for part, path in files if path.exists()]
    return "\n\n".join([HEAD.rstrip(), *parts]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(page(Path(sys.argv[1])), encoding="utf-8")
