"""Pruned transformers in their own class: generate, caches, padding, checkpoints, training."""

import copy
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import edgewise as ew
from edgewise.errors import PlanError
from zoo import build

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.xdist_group("hf")  # one process prunes each model once

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


def logits(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize("name", EVERY)
def test_logits_precision_and_a_step_of_training(name: str, tmp_path: Path) -> None:
    graph, mask, small = pruned(name)
    inputs = inputs_of(name)
    wanted = logits(ew.prune(graph, mask).eval(), **inputs)
    assert torch.allclose(logits(small, **inputs), wanted, atol=1e-5)
    how = ew.hf.save_pretrained(small, tmp_path)
    again = type(small).from_pretrained(tmp_path) if how == "stock" else _auto(small)(tmp_path)
    assert torch.allclose(logits(again.eval(), **inputs), wanted, atol=1e-5)
    labels = inputs.get("decoder_input_ids", inputs.get("input_ids")).contiguous()
    small.train()(**inputs, labels=labels).loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in small.parameters())
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
    assert torch.allclose(
        logits(small.eval().to(torch.bfloat16), **half).float(), wanted, atol=0.05
    )


def _auto(small):
    auto = getattr(transformers, next(iter(_auto_map(small))))
    return lambda folder: auto.from_pretrained(folder, trust_remote_code=True)


def _auto_map(small):
    return [
        auto for end, auto in ew.hf._AUTO.items() if type(small).__name__.endswith(end)
    ]  # the class that loads it


@pytest.mark.parametrize("name", [p for p in EVERY if p.values != ("Bert",)])
def test_generation_with_a_cache_is_generation_without(name: str) -> None:
    _, _, small = pruned(name)
    given = {k: v for k, v in inputs_of(name).items() if not k.startswith("decoder")}
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    cached = small.generate(**given, **options)
    assert torch.equal(cached, small.generate(**given, **options, use_cache=False))


@pytest.mark.parametrize("name", ["Llama", "GPT2"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_no_part_of_the_text(name: str, side: str) -> None:
    _, _, small = pruned(name)
    row, pad = IDS[:1], torch.zeros(1, 3, dtype=torch.long)
    ids = torch.cat([pad, row] if side == "left" else [row, pad], 1)
    mask = ids.ne(0).long()
    place = (mask.cumsum(1) - 1).clamp(min=0)
    found = logits(small, input_ids=ids, attention_mask=mask, position_ids=place)
    assert torch.allclose(found[ids.ne(0)], logits(small, input_ids=row)[0], atol=1e-5)


def test_a_cache_is_continued_where_the_first_layer_is_gone() -> None:
    _, _, small = pruned("Llama")
    assert [m.layer_idx for m in small.modules() if hasattr(m, "k_proj")] == [0, 1]
    with torch.no_grad():
        begun = small(IDS[:, :3], use_cache=True)
        rest = small(IDS[:, 3:], past_key_values=begun.past_key_values).logits
    whole = logits(small, input_ids=IDS)
    assert torch.allclose(torch.cat([begun.logits, rest], 1), whole, atol=1e-5)


def test_whole_layers_and_even_widths_are_a_stock_checkpoint(tmp_path: Path) -> None:
    graph, _, _ = pruned("Llama")
    layer = [u.name for u in graph.units
             if u.name.endswith((".1.self_attn.o_proj", ".1.mlp.down_proj"))]  # fmt: skip
    even = [u.name for u in graph.units if u.name.startswith("hidden:") and ".1." not in u.name]
    for mask, layers, width in ((layer, 2, 64), ([*layer, *even], 2, 32)):
        small = ew.prune(graph, graph.mask(mask), form="module").eval()
        assert ew.hf.save_pretrained(small, tmp_path, stock=True) == "stock"
        stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert (stock.config.num_hidden_layers, stock.config.intermediate_size) == (layers, width)
        assert torch.allclose(logits(stock, input_ids=IDS), logits(small, input_ids=IDS), atol=1e-5)


def test_a_folder_loads_in_a_process_without_edgewise(tmp_path: Path) -> None:
    _, _, small = pruned("Llama")
    assert ew.hf.save_pretrained(small, tmp_path / "m") == "trust_remote_code"
    with pytest.raises(PlanError, match="no stock checkpoint"):
        ew.hf.save_pretrained(small, tmp_path / "s", stock=True)
    torch.save((IDS, logits(small, input_ids=IDS)), tmp_path / "wanted.pt")
    code = f"""
import sys, torch
sys.modules["edgewise"] = None
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "m")!r}, trust_remote_code=True)
ids, wanted = torch.load({str(tmp_path / "wanted.pt")!r})
assert torch.allclose(model.eval()(ids).logits, wanted, atol=1e-5)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_of_a_gguf_are_saved_as_the_floats_that_they_are(tmp_path: Path) -> None:
    gguf = pytest.importorskip("transformers.quantizers.quantizer_gguf")
    _, _, small = pruned("Llama")
    small.config.quantization_config = transformers.utils.quantization_config.GgufConfig()
    small.hf_quantizer = gguf.GgufHfQuantizer(small.config.quantization_config)
    small.quantization_method = small.config.quantization_config.quant_method
    ew.hf.save_pretrained(small, tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert (tmp_path / "model.safetensors").exists()
    assert small.config.quantization_config is not None


def test_only_pruned_transformers_are_saved_so(tmp_path: Path) -> None:
    for model in (build("residual")[0], make("Llama")):
        with pytest.raises(PlanError, match="is not a pruned transformers model"):
            ew.hf.save_pretrained(model, tmp_path)
