"""Tiny transformers of random weights, each traced and pruned once in a process."""

import copy
import functools

import pytest
import torch
import transformers

import edgewise as ew

one_process = pytest.mark.xdist_group("hf")  # which traces each model once

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "num_attention_heads": 4, "pad_token_id": 0,
}  # fmt: skip
DEEP = {**SMALL, "intermediate_size": 64, "num_hidden_layers": 3}
KINDS = ("edge", "hidden", "heads")
IDS = torch.tensor([[5, 9, 33, 7, 21, 40], [3, 8, 11, 60, 2, 17]])


def make(name: str):
    """A tiny model of random weights."""
    torch.manual_seed(0)
    seq = {"decoder_start_token_id": 0, "vocab_size": 64, "pad_token_id": 0, "d_model": 32}
    config, model = {
        "Llama": lambda: (dict(DEEP, num_key_value_heads=2), "LlamaForCausalLM"),
        "Qwen3": lambda: (dict(DEEP, num_key_value_heads=2, head_dim=8), "Qwen3ForCausalLM"),
        "Gemma": lambda: (dict(DEEP, num_key_value_heads=2, head_dim=8), "GemmaForCausalLM"),
        "GPT2": lambda: (
            {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "pad_token_id": 0},
            "GPT2LMHeadModel",
        ),
        "Bert": lambda: (DEEP, "BertForMaskedLM"),
        "T5": lambda: (
            dict(seq, d_kv=8, d_ff=64, num_layers=2, num_heads=4), "T5ForConditionalGeneration",
        ),
        "Whisper": lambda: (
            dict(
                seq, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
                num_mel_bins=8, max_source_positions=12, max_target_positions=20,
                bos_token_id=1, eos_token_id=2, suppress_tokens=None, begin_suppress_tokens=None,
            ),
            "WhisperForConditionalGeneration",
        ),
    }[name]()  # fmt: skip
    made = getattr(transformers, f"{name}Config")(**config)
    return getattr(transformers, model)._from_config(made).eval()


def inputs_of(name: str) -> dict[str, torch.Tensor]:
    if name == "T5":
        return {"input_ids": IDS, "decoder_input_ids": IDS[:, :4]}
    if name == "Whisper":
        return {"input_features": torch.randn(2, 8, 24), "decoder_input_ids": IDS[:, :4]}
    return {"input_ids": IDS}


REMOVED = {
    "Llama": ["0.self_attn.o_proj", "1.mlp.down_proj", "heads:model.layers.2", "hidden:"],
    "Qwen3": ["0.self_attn.o_proj", "1.mlp.down_proj", "heads:model.layers.2", "hidden:"],
    "Gemma": ["0.self_attn.o_proj", "1.mlp.down_proj", "hidden:"],
    "GPT2": ["0.attn.resid_dropout", "heads:transformer.h.1", "hidden:transformer.h.2"],
    "Bert": ["0.attention.output", "heads:bert.encoder.layer.1", "hidden:bert.encoder.layer.2"],
    "T5": ["encoder.block.1.layer.0.dropout", "decoder.block.1.layer.2", "hidden:"],
    "Whisper": ["model.encoder.layers.0.dropout#3", "heads:model.decoder.layers.1", "hidden:"],
}  # fmt: skip


SAME = ("Qwen3", "Gemma", "Bert", "Whisper")  # of the kinds of the other three
EVERY = [pytest.param(n, marks=[pytest.mark.slow] * (n in SAME)) for n in sorted(REMOVED)]


def pruned(name: str):
    """A graph, a mask, and a copy of the pruned model that a test may change."""
    graph, mask, small = _pruned(name)
    return graph, mask, copy.deepcopy(small)


@functools.cache
def _pruned(name: str):
    model = make(name)
    kwargs = {**inputs_of(name), **({} if name == "Bert" else {"use_cache": False})}
    graph = ew.trace(model, (), kwargs, granularity=KINDS, slices=2)
    chosen = []
    for part in REMOVED[name]:
        found = [u.name for u in graph.units if part in u.name and "->" not in u.name]
        assert found, (part, [u.name for u in graph.units])
        chosen.append(found[-1])
    mask = graph.mask(chosen)
    return graph, mask, ew.prune(graph, mask, form="module").eval()
