"""A small Llama that spells docstrings, pruned by branches, heads and channels at once.

python examples/language_model.py

Inputs are what the model takes by name, targets the characters that follow. What comes out is a
`LlamaForCausalLM` as before, which goes on writing.
"""

import argparse
import inspect
import json
import logging
import textwrap
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

import edgewise as ew

Batches = list[tuple[dict[str, Tensor], Tensor]]
MODULES = (argparse, json, logging, textwrap)
LENGTH = 64  # characters that the model sees


def speller() -> LlamaForCausalLM:
    """Four layers; characters [batch, LENGTH] to logits of the next ones [batch, LENGTH, 128]."""
    config = LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2 * LENGTH,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def text() -> str:
    """The docstrings of some modules of Python, about 76 000 characters."""
    known = {m.__name__: inspect.getdoc(m) for m in MODULES}
    for module in MODULES:
        for name, value in sorted(vars(module).items()):
            if inspect.isclass(value):
                known |= {f"{name}.{k}": inspect.getdoc(v) for k, v in vars(value).items()}
            known[name] = inspect.getdoc(value)
    return "\n\n".join(sorted({doc for doc in known.values() if doc and doc.isascii()}))


def passages() -> list[Batches]:
    """Characters and the next ones, to train, search, verify and report."""
    codes = torch.tensor(list(text().encode()))
    rows = codes[: len(codes) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    parts = rows[order].split([len(rows) - 384, 128, 128, 128])
    return [
        [({"input_ids": batch[:, :-1]}, batch[:, 1:]) for batch in part.split(32)] for part in parts
    ]


def loss(outputs: Any, targets: Tensor) -> Tensor:
    """Nats a character, which gradients are taken of."""
    return F.cross_entropy(outputs["logits"].transpose(1, 2), targets)


def train(model: nn.Module, batches: Batches, epochs: int) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for inputs, following in batches:
            optimizer.zero_grad()
            loss(model(**inputs), following).backward()
            optimizer.step()
    return model.eval()


def main(evaluations: int = 30, epochs: int = 4) -> None:
    """Print what was removed, and cost and loss before and after."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    training, search, verify, report = passages()
    model = train(speller(), training, epochs)

    graph = ew.trace(
        model,
        (),
        {"input_ids": training[0][0]["input_ids"][:2]},
        granularity=("branch", "hidden", "heads"),  # branches, MLP channels, attention heads
        slices=4,
        importance=ew.importance.taylor(training[:4], loss),
    )
    recovery = ew.Recovery("linear", training[:4])
    objective = ew.Objective(search, "perplexity", recovery=recovery, verify=verify, report=report)
    study = ew.Study(graph, objective)
    study.run(evaluations, ew.Budget(macs=0.6))
    plan = study.plan()

    small = ew.prune(graph, plan, form="module")
    settings = ew.Healing(epochs=1, optimizer="adamw", lr=1e-3)
    healed = ew.heal(small, training, loss=loss, settings=settings)

    print(f"removed {len(plan.removed)} of {len(graph.units)} units:")
    print(*(f"  {label}" for label in plan.labels), sep="\n")
    print(f"MACs a passage {plan.before.macs:,} -> {plan.after.macs:,}")
    print(f"parameters {plan.before.params:,} -> {plan.after.params:,}")
    for name, network in {"unpruned": model, "pruned": small, "healed": healed}.items():
        print(f"{name:9} {objective.score(network, 'report').loss:.3f} nats a character")
    start = torch.tensor([list(b"The default ")])
    written = healed.generate(start, max_new_tokens=24, do_sample=False, pad_token_id=0)
    print(f"wrote     {bytes(written[0].tolist()).decode()!r}")


if __name__ == "__main__":
    main()
