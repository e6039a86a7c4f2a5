"""Writes docs/models.md from the JSON of coverage.py.

python benchmarks/coverage_page.py benchmarks/results/coverage.json docs/models.md
"""

import json
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HEAD = """# Which models work

Every row is a model with random weights and a small input, measured by
[`benchmarks/coverage.py`](../benchmarks/coverage.py) ({machine}). *Works* means that for five
random valid masks the pruned model gives what the masked model gives (within 1e-5 of its largest
output in float32, 1e-10 in float64), and that parameters and MACs are exactly those predicted, the
MACs counted by torch's own counter. *Difference* is the largest of the five. ONNX exports are
compared with onnxruntime; they were tried up to 30 million parameters.

*Widths* are sets of channels that can be cut as well ("12 hidden, 12 heads"), in nested
slices. For each model that has an entry there, two more masks were tried, of branches and widths
together; ✗ marks those that fail.

*Free* are the sizes that a pruned network, widths cut, takes as the model does: it gives what the
masked network gives (and, with nothing removed, what the model gives) in two other batches and,
where the model runs there, at two other lengths, heights and widths. What is not free was fixed
when the model was traced and is refused at run time, or the model itself takes one size only.
Nothing there: not tried.

torchvision: all classification, segmentation, detection and video models. timm: the first model, in
alphabetical order, of every family (file of `timm.models`). transformers: small configurations.

| suite | models | work | median trace | longest trace | ONNX |
|---|---|---|---|---|---|
"""


OWN_CLASS = """`ew.prune(graph, plan, form="module")` gives the pruned model in its own class. Up to
eight units of each kind were removed one at a time by
[`benchmarks/module_form.py`](../benchmarks/module_form.py), and the result compared with the masked
model on the example, at another batch and at other sizes at which the model runs. Units within a
function (half of a rotary embedding, the root of a norm that is written out, the cube of an
activation) have no module to edit, and most of the reasons below are these;
`ew.without_module_form(graph)` lists them for a model of yours."""


PARTS = """What decides by the values of its tensors is no graph: none of torchvision's detectors
is. Of those in the table the backbone is: with [`part="backbone"`](howto/parts.md) it is traced,
pruned by five random valid masks of one in {removed} of its units (branches, skips and hidden
widths), and put back by [`benchmarks/parts.py`](../benchmarks/parts.py) ({machine}; busy with
other work, so that times are long). So are parts of a RAFT, and the U-Net of a pipeline that calls
it in a loop, which is compared at another size of latents, too (traced anew there).
*Difference* is the largest between the outputs of the whole model, boxes to labels, pruned and
with its part masked; where a network amplifies rounding, the two are compared in float64 as well,
where they must agree: *other boxes* is what such rounding chose in float32. *Boxes* is how many it
finds in two images with random weights. *Losses* says whether what the pruned model loses, a
detector in train mode, is finite, and *ONNX* is the difference of the exported part in
onnxruntime."""


def passed(row: dict[str, Any]) -> bool:
    """Pruned is masked, and costs are exact, for every mask that was tried."""
    return "error" not in row and not row["problem"]


def summary(rows: list[dict[str, Any]]) -> list[str]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        precise = " (float64)" if "precision" in row else ""
        suite = row["suite"]
        if suite == "torchvision":
            suite += f" {row['family']}"
        groups.setdefault(suite + precise, []).append(row)
    lines = []
    for name, group in groups.items():
        seconds = [row["trace_seconds"] for row in group if "trace_seconds" in row]
        tried = [row for row in group if "onnx" in row]
        exported = sum(row["onnx"] is True for row in tried)
        trace = f"{statistics.median(seconds):.1f} s | {max(seconds):.0f} s" if seconds else "– | –"
        onnx = f"{exported} of {len(tried)}" if tried else "–"
        lines.append(f"| {name} | {len(group)} | {sum(map(passed, group))} | {trace} | {onnx} |")
    return lines


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| model | front end | vertices | edges | units | widths | free | trace | difference "
        "| ONNX |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "error" in row:
            continue
        units = ", ".join(f"{count} {kind}" for kind, count in sorted(row["units"].items()))
        onnx = row.get("onnx")
        export = "" if onnx is None else "yes" if onnx is True else "no"
        mark = "" if passed(row) else " ✗"
        lines.append(
            f"| {row['name']}{mark} | {row['frontend'].removeprefix('torch.')} | {row['vertices']} "
            f"| {row['edges']} | {units} | {widths(row)} | {free(row)} "
            f"| {row['trace_seconds']} s "
            f"| {row['max_difference']:.1e} "
            f"| {export} |"
        )
    return lines


def widths(row: dict[str, Any]) -> str:
    """The sets of channels of a row: nothing where they were not tried."""
    if row.get("width_problem"):
        return "✗"
    return ", ".join(f"{count} {kind}" for kind, count in sorted(row.get("widths", {}).items()))


def free(row: dict[str, Any]) -> str:
    """The sizes that are free: nothing where they were not tried."""
    return ", ".join(row.get("free", [])) + " ✗" * bool(row.get("free_problem"))


def free_summary(rows: list[dict[str, Any]]) -> str:
    tried = [row for row in rows if "free" in row]
    wrong = [row for row in tried if "differs" in row["free_problem"]]
    counts = Counter(name for row in tried for name in row["free"])
    told = sum(bool(row["told"]) for row in tried)
    found = ", ".join(f"{name} in {count}" for name, count in sorted(counts.items()))
    return (
        f"What is free: {len(tried)} models tried; {found}. {told} tell of something that tracing "
        f"fixed. {len(wrong)} give a wrong answer at another size."
    )


def width_summary(rows: list[dict[str, Any]]) -> str:
    tried = [row for row in rows if "width_problem" in row]
    held = [row for row in tried if not row["width_problem"]]
    return (
        f"With widths: {len(tried)} models tried, {len(held)} hold, "
        f"{sum(bool(row.get('widths')) for row in held)} of them offer some."
    )


def reasons(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        name = f"{row['name']} (float64)" if "precision" in row else row["name"]
        if not passed(row):
            lines.append(f"- **{name}** does not work: {plain(row.get('error') or row['problem'])}")
        elif row.get("width_problem"):
            lines.append(f"- **{name}** works, but not with widths: {plain(row['width_problem'])}")
        elif row.get("free_problem"):
            lines.append(f"- **{name}** works, but not at all sizes: {plain(row['free_problem'])}")
        elif row.get("onnx") not in (None, True):
            lines.append(f"- **{name}** works, but is not exported: {plain(row['onnx'])}")
    return lines


KINDS = ("edge", "hidden", "heads")


def own_class(rows: list[dict[str, Any]]) -> list[str]:
    """Which units can be removed in the model's own class, from the JSON of module_form.py."""
    lines = [
        "| suite | models | branches, skips and other edges | hidden | heads | models with all |",
        "|---|---|---|---|---|---|",
    ]
    for suite in sorted({row["suite"] for row in rows}):
        found = [row for row in rows if row["suite"] == suite and "error" not in row]
        cells = []
        for kind in KINDS:
            tried = sum(row["tried"].get(kind, 0) for row in found)
            held = sum(row["held"].get(kind, 0) for row in found)
            cells.append(f"{held} of {tried} ({held / tried:.0%})" if tried else "–")
        whole = sum(row["tried"] == row["held"] for row in found)
        lines.append(f"| {suite} | {len(found)} | {' | '.join(cells)} | {whole} |")
    return lines


def own_class_reasons(rows: list[dict[str, Any]]) -> list[str]:
    """For each model, how many units lack the form, and the reason of the first of each place."""
    lines = []
    for row in rows:
        if "error" in row:
            lines.append(f"- **{row['name']}** was not measured: {plain(row['error'])}")
            continue
        places: dict[str, str] = {}
        for unit, reason in row["reasons"].items():
            places.setdefault(reason.split(" at ")[0].split(" cannot ")[0], f"{unit}: {reason}")
        if places:
            told = "; ".join(plain(text)[:240] for text in list(places.values())[:2])
            lines.append(f"- **{row['name']}**, {len(row['reasons'])} units: {told}")
    return lines


def parts(rows: list[dict[str, Any]]) -> list[str]:
    """Models of which a part is pruned, from the JSON of parts.py."""
    lines = [
        "| model | front end | units | share of MACs | trace | difference | boxes | losses "
        "| ONNX |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['name']} ✗ | {plain(row['error'])} | | | | | | | |")
            continue
        far = row["max_difference"]
        difference = f"{far:.1e}" if far is not None else "other boxes"
        boxes = f"{min(row['boxes'])} to {max(row['boxes'])}" if row["boxes"] else "–"
        finite = "finite" if row["finite"] else "✗"
        lines.append(
            f"| {row['name']} | {row['frontend'].removeprefix('torch.')} | {row['units']} "
            f"| {row['share_of_macs']:.0%} | {row['trace_seconds']} s "
            f"| {difference} | {boxes} | {finite} | {row['onnx_difference']:.1e} |"
        )
    return lines


def plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def words_of(machine: dict[str, Any]) -> str:
    return f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}"


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    record = json.loads(source.read_text())
    rows, machine = record["rows"], record["machine"]
    sections = [HEAD.format(machine=words_of(machine)) + "\n".join(summary(rows))]
    sections += [width_summary(rows), free_summary(rows)]
    sections += ["## What does not work, and why", "\n".join(reasons(rows))]
    for suite in sorted({row["suite"] for row in rows}):
        chosen = [row for row in rows if row["suite"] == suite and "precision" not in row]
        sections += [f"## {suite}", "\n".join(table(chosen))]
    found = json.loads(source.with_name("parts.json").read_text())
    own = words_of(found["machine"])
    parts_of = PARTS.format(machine=own, removed=found["removed"])
    sections += ["## By a part", parts_of, "\n".join(parts(found["rows"]))]
    forms = json.loads(source.with_name("module_form.json").read_text())["rows"]
    sections += ["## In the model's own class", OWN_CLASS, "\n".join(own_class(forms))]
    sections += ["\n".join(own_class_reasons(forms))]
    target.write_text("\n\n".join(sections) + "\n")


if __name__ == "__main__":
    main()
