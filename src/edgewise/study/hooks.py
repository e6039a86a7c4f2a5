"""A study in other people's tools: Optuna's dashboard, Model Explorer.

Examples:
    >>> len(ew.hooks.optuna_study(study).trials) > 1
    True
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import EdgewiseError
from ..graph.liveness import liveness
from ..values.files import write_text
from .study import Study

COLOURS = [{"stop": 0, "bgColor": "#f7f7f7"}, {"stop": 1, "bgColor": "#e6550d"}]


def optuna_study(study: Study, storage: str | None = None) -> Any:
    """The search as a study of Optuna, for optuna-dashboard and Optuna's plots.

    Every mask measured on the search split is a trial, its units are parameters that are True
    where they are removed. Called again with the same storage it adds what is new.

    Args:
        study: what is exported; it stays as it is.
        storage: Optuna's, such as "sqlite:///optuna.db"; None keeps it in memory.

    Raises:
        EdgewiseError: Optuna is not installed.

    Examples:
        >>> found = ew.hooks.optuna_study(study)
        >>> found.best_value <= found.trials[0].value
        True
    """
    try:
        optuna = import_module("optuna")
    except ImportError as error:
        raise EdgewiseError("This needs Optuna: pip install optuna optuna-dashboard") from error
    found = optuna.create_study(storage=storage, study_name=study.name, load_if_exists=True)
    names, kind = [u.name for u in study.graph.units], optuna.distributions.CategoricalDistribution
    space = dict.fromkeys(names, kind((False, True)))
    records = [e for e in study.evaluations if e.split == "search"][len(found.trials) :]
    for record in records:
        state = optuna.trial.TrialState.COMPLETE if record.ok else optuna.trial.TrialState.FAIL
        gone = (bit == "1" for bit in record.mask)
        told = {**record.metrics, "origin": record.origin, "seconds": record.seconds}
        told |= {"error": record.error} if record.error else {}
        trial = optuna.trial.create_trial(
            state=state, value=record.loss, params=dict(zip(names, gone, strict=True)),
            distributions=space, user_attrs=told,
        )  # fmt: skip
        found.add_trial(trial)
    return found


def model_explorer(study: Study, folder: str | Path) -> tuple[Path, Path]:
    """Two files for Model Explorer: the network, and what it loses without each part of it.

    Open the first there, and add the second as node data: each vertex has the loss of the mask
    that removes, alone, the smallest unit to which it belongs. Units that were not tried alone,
    such as widths, have none.

    Args:
        study: after a run.
        folder: where `graph.json` and `losses.json` go.

    Returns:
        Their paths.

    Examples:
        >>> graph_file, losses_file = ew.hooks.model_explorer(study, "explorer")
        >>> graph_file.name, losses_file.name
        ('graph.json', 'losses.json')
    """
    graph, losses = study.graph, dict[str, dict[str, float]]()
    nodes = []
    for index, vertex in enumerate(graph.vertices):
        above, _, name = vertex.name.rpartition(".")
        sources = [graph.edges[edge].source for edge in graph.inputs[index]]
        facts = {"operator": vertex.op, "shape": str(vertex.shape)}
        nodes.append({
            "id": str(index), "label": name, "namespace": above.replace(".", "/"),
            "attrs": [{"key": key, "value": value} for key, value in facts.items()],
            "incomingEdges": [
                {"sourceNodeId": str(source), "targetNodeInputId": str(place)}
                for place, source in enumerate(sources)
            ],
        })  # fmt: skip
    known = {
        e.mask: e.loss for e in study.evaluations if e.split == "search" and e.loss is not None
    }
    for unit in sorted(range(len(graph.units)), key=lambda u: -graph.units[u].cost.params):
        mask = graph.mask([unit])
        if str(mask) in known:
            rest = liveness(graph, mask)
            gone = {i for i, state in enumerate(rest.states) if state is None} | rest.bypassed
            losses |= {str(i): {"value": known[str(mask)]} for i in gone}
    data = {"name": "loss without it", "results": losses, "gradient": COLOURS}
    files = {
        "graph.json": {"label": study.name, "graphs": [{"id": study.name, "nodes": nodes}]},
        "losses.json": {study.name: data},
    }
    for name, content in files.items():
        write_text(Path(folder) / name, json.dumps(content, indent=1) + "\n")
    return Path(folder) / "graph.json", Path(folder) / "losses.json"
