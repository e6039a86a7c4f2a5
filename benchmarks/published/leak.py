"""What a disconnected network answers, as published: a constant made of biases.

The blocks behind a cut still add their biases, and every edge into the classifier brings its share.
So the loss of a disconnected network follows how many of those edges are left, and two or three
evaluations that the protocol has anyway (everything removed, a bridge removed) give the line. A
connected network lies between its own answer and that constant.
"""

from typing import Any

import numpy as np

from dags import Dag


def share_left(dag: Dag, masks: np.ndarray) -> np.ndarray:
    """[n_masks] the share of the edges into the last vertex that each mask keeps."""
    last = len(dag.widths) - 1
    return np.asarray(1.0 - masks[:, [head == last for _, head in dag.edges]].mean(axis=1))


def constants(dag: Dag, masks: np.ndarray, losses: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Log losses of masks `test` as if disconnected, from measured disconnected masks."""
    known, wanted = (np.column_stack([np.ones(len(m)), share_left(dag, m)]) for m in (masks, test))
    return np.asarray(wanted @ np.linalg.lstsq(known, np.log(losses), rcond=None)[0])


def between(model: Any, least: float, constant: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Log losses between that of the whole network, `least`, and the constants.

    How far along is what the model predicts, on its own scale from nothing to everything removed.
    """
    units = test.shape[1]
    low, top = model.predict_link(np.vstack([np.zeros(units), np.ones(units)]))
    flow = np.clip((top - model.predict_link(test)) / max(top - low, 1e-9), 0.0, 1.0)
    return np.asarray(flow * least + (1.0 - flow) * constant)
