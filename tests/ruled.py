"""A small vision transformer, traced once, and random rules for it."""

from functools import cache

import timm
import torch
from hypothesis import strategies as st

import edgewise as ew

LAYERS = "blocks.*"
KINDS = ("edge", "hidden", "heads")


@cache
def vit(kinds: tuple[str, ...] = KINDS, slices: int = 3) -> ew.Graph:
    """Two layers of four heads: of each attention and MLP, and nested parts of their widths."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "depth": 2, "num_heads": 4, "mlp_ratio": 1.5, "num_classes": 3}
    model = timm.models.VisionTransformer(img_size=16, patch_size=8, **sizes).eval()
    graph = ew.trace(model, torch.randn(2, 3, 16, 16), granularity=kinds, slices=slices)
    return graph.select(lambda unit: unit.cost.params > 0)


PATHS = ("blocks", LAYERS, "blocks.0", "blocks.*.mlp")
KEYS = st.sampled_from([*KINDS, *PATHS, f"heads:{LAYERS}", f"edge:{LAYERS}", "hidden:blocks"])
SHARES = st.sampled_from([0, 0.25, 0.5, 0.6, 0.9])
RULES = {
    "keep": st.sampled_from([*PATHS[2:], "blocks.1.attn", "Mlp"]),
    "at_most": st.dictionaries(KEYS, SHARES, min_size=1, max_size=2),
    "at_least": st.dictionaries(KEYS, st.integers(1, 13), min_size=1, max_size=2),
    "tie": st.sampled_from([LAYERS, "blocks.0", f"edge:{LAYERS}"]),
    "alike": st.sampled_from([LAYERS, "hidden:blocks.*.mlp", f"heads:{LAYERS}"]),
}
