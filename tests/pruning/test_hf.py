"""Pruned transformers in their own class: generate, caches, padding, checkpoints, training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import edgewise as ew
from edgewise.errors import PlanError
from hugging_face import EVERY, IDS, inputs_of, make, one_process, pruned
from zoo import build

transformers = pytest.importorskip("transformers")
pytestmark = one_process


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
