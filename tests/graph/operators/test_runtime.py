"""What the code of a pruned model calls."""

import pickle

import pytest

from edgewise.graph.operators import runtime

NAMES = ["assemble", "by_mode", "ragged_group_norm", "RaggedGroupNorm"]


@pytest.mark.parametrize("name", NAMES)
def test_models_that_were_pickled_find_what_they_call(name: str) -> None:
    """They name the module `edgewise.emit`."""
    stored = f"cedgewise.emit\n{name}\n.".encode()
    assert pickle.loads(stored) is getattr(runtime, name)
