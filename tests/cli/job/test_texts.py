"""Text as sequences of tokens, and checkpoints of transformers, in a job."""

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import edgewise as ew
from cli.test_cli import call
from edgewise.cli import init
from edgewise.cli.inspect import trace_named
from edgewise.cli.job.config import read_config
from edgewise.cli.job.datasets import load_batches
from edgewise.cli.job.job import load_outcome, open_study, trace_job, write_weights
from edgewise.cli.job.sections import DataSection
from edgewise.cli.job.sources import load_model, located
from edgewise.cli.job.texts import sequences
from edgewise.cli.job.toml_sections import Rows
from edgewise.errors import ConfigError
from edgewise.evaluation.losses import LOSSES
from edgewise.pruning.plan import Plan
from edgewise.values.nested import IGNORED

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

SIZES = {
    "vocab_size": 128, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip
JOB = """[model]
source = "hf:checkpoint"
[data]
source = "{source}"
length = 8
search = "0:4"
verify = "4:8"
report = "8:12"
[units]
only = ["*attention", "*mlp"]
[budget]
params = 0.8
"""
HEAL = """
[heal]
rows = "12:36"
batch = 8
epochs = 4
optimizer = "adamw"
lr = 0.003
distill = 1.0
"""
SENTENCE = "Ships sail at dawn, and nobody waves. "


def letters(folder: Path) -> None:
    """A tokenizer whose tokens are the letters of ASCII."""
    known = {chr(code): code for code in range(128)}
    model = tokenizers.models.BPE(vocab=known, merges=[], unk_token="?")
    made = tokenizers.Tokenizer(model)
    transformers.PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a text and a job."""
    folder = tmp_path_factory.mktemp("language")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, head_dim=8))
    model.save_pretrained(folder / "checkpoint")
    letters(folder / "checkpoint")
    (folder / "text.txt").write_text(SENTENCE * 8)
    (folder / "job.toml").write_text(JOB.format(source="text:text.txt"))
    return folder


@pytest.fixture
def data(checkpoint: Path) -> DataSection:
    return read_config(checkpoint / "job.toml").data


@settings(max_examples=20)
@given(st.lists(st.text("ab \n", max_size=30), min_size=1, max_size=5), st.integers(2, 9))
def test_sequences_are_the_text(checkpoint: Path, texts: list[str], length: int) -> None:
    """They hold all of every document, and none holds two; what fills up is not asked for."""
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(texts):
            (Path(folder) / f"{number}.txt").write_text(text)
        tokenizer = f"hf:{checkpoint / 'checkpoint'}"
        data = DataSection(f"text:{folder}/*.txt", tokenizer=tokenizer, length=length)
        kept = [text for text in texts if text.strip()]
        if sum(map(len, kept)) < length:
            with pytest.raises(ConfigError, match=f"a sequence {length}"):
                list(sequences(data))
            return
        found = list(sequences(data))
    pieces = [text[i : i + length] for text in kept for i in range(0, len(text), length)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    assert len(found) == len(pieces)
    for (inputs, following), piece in zip(found, pieces, strict=True):
        assert len(inputs["input_ids"]) == len(following) == length
        assert "".join(map(chr, inputs["input_ids"][: len(piece)])) == piece
        assert "".join(map(chr, following[following != IGNORED])) == piece[1:]


def test_rows_of_a_parquet_file_are_documents(checkpoint: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    table = pyarrow.table({"text": ["abcde", "", None, "fgh"], "other": [1, 2, 3, 4]})
    parquet.write_table(table, tmp_path / "texts.parquet")
    data = DataSection(
        f"text:{tmp_path / 'texts.parquet'}", tokenizer=f"hf:{checkpoint / 'checkpoint'}", length=3
    )
    found = ["".join(map(chr, inputs["input_ids"])).strip("\0") for inputs, _ in sequences(data)]
    assert found == ["abc", "de", "fgh"]
    with pytest.raises(ConfigError, match="no column 'texts'"):
        next(sequences(replace(data, text="texts")))


def test_a_job_on_text_ends_with_a_checkpoint(checkpoint: Path) -> None:
    """Its loss is that of transformers, and the perplexity that it tells the exponential of it."""
    config = read_config(checkpoint / "job.toml")
    graph = trace_job(config)
    assert [unit.label for unit in graph.units] == ["layers.0 attention", "layers.0 mlp"]
    ((inputs, _),) = load_batches(config.data, config.data.search)
    with torch.no_grad():
        wanted = load_model(config.model)(**inputs, labels=inputs["input_ids"]).loss
    with open_study(config, graph) as study:
        record = study.preview(graph.empty)
        assert record.loss == pytest.approx(float(wanted), rel=1e-5)
        assert record.metrics["perplexity"] == pytest.approx(float(wanted.exp()), rel=1e-5)
        assert 0 <= record.metrics["next_token"] <= 1
        study.run(3, config.budget)
        plan = study.plan(finalists=1)
    loss, told = plan.measured["report"].interval, plan.measured["report"].metric_intervals
    assert told["perplexity"] == pytest.approx(tuple(torch.tensor(loss).exp().tolist()))
    _, written = write_weights(config, graph, plan)
    assert plan.labels[0] in (written / "README.md").read_text()
    assert (written / "tokenizer.json").exists()
    again = transformers.AutoModelForCausalLM.from_pretrained(written, trust_remote_code=True)
    small = ew.prune(graph, plan)
    assert torch.allclose(again(**inputs).logits, small(**inputs)["logits"], atol=1e-5)


def test_a_job_on_text_is_fine_tuned(checkpoint: Path, tmp_path: Path) -> None:
    """Taught by the unpruned model; what transformers loads is the outcome."""
    text = JOB.format(source="text:text.txt") + HEAL + '[objective]\nloss = "likeness"\n'
    path = checkpoint / "heal.toml"
    path.write_text(f'{text}[search]\nexamples = 8\n[output]\ndirectory = "{tmp_path}"\n')
    run = call("run", path)
    assert run.exit_code == 0, run.output
    with sqlite3.connect(tmp_path / "study.db") as database:
        query = "select sum(samples) from evaluations where split like 'search%'"
        assert database.execute(query).fetchone() == (8,)
    config = read_config(path)
    plan = Plan.load(tmp_path / "plan.json")
    outcome = load_outcome(config, plan)
    assert outcome.healed is not None
    assert outcome.healed.loss < plan.measured["report"].loss
    assert f"{outcome.healed.loss:.4g} |" in (tmp_path / "checkpoint" / "README.md").read_text()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "checkpoint", trust_remote_code=True
    )
    healed, pruned = (load_file(tmp_path / f"{name}.safetensors") for name in ("healed", "pruned"))
    state = loaded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in healed.items())
    assert any(not torch.equal(pruned[name], tensor) for name, tensor in healed.items())


PAIRS = """
import torch


def pairs():
    ids = torch.randint(0, 128, (12, 6), generator=torch.Generator().manual_seed(0))
    for row in ids:
        given = {"decoder_input_ids": row[:-1], NAME: ENCODED}
        yield given, row[1:]
"""
SEQ = {"d_model": 16, "vocab_size": 128, "decoder_start_token_id": 0, "pad_token_id": 0}
SHAPES = {
    "Gemma": SIZES | {"head_dim": 8},
    "Mistral": SIZES,
    "GPT2": {"vocab_size": 128, "n_embd": 16, "n_layer": 2, "n_head": 2},
    "OPT": {
        "vocab_size": 128, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "word_embed_proj_dim": 16, "max_position_embeddings": 64,
    },
    "T5": SEQ | {"d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    "Whisper": SEQ | {
        "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
        "num_mel_bins": 8, "max_source_positions": 6, "max_target_positions": 20,
        "suppress_tokens": None, "begin_suppress_tokens": None, "bos_token_id": 1,
        "eos_token_id": 2,
    },
}  # fmt: skip
ENCODED = {
    "T5": ('"input_ids"', "row"),
    "Whisper": ('"input_features"', "row.new_ones(8, 12).float()"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_other_architectures_go_the_same_way(name: str, tmp_path: Path) -> None:
    config = getattr(transformers, f"{name}Config")(**SHAPES[name])
    kind = "ForConditionalGeneration" if name in ENCODED else "ForCausalLM"
    made = getattr(transformers, {"GPT2": "GPT2LMHeadModel"}.get(name, f"{name}{kind}"))(config)
    made.save_pretrained(tmp_path / "checkpoint")
    letters(tmp_path / "checkpoint")
    (tmp_path / "text.txt").write_text(SENTENCE * 8)
    job = JOB.format(source="text:text.txt")
    if name in ENCODED:
        given, encoded = ENCODED[name]
        code = PAIRS.replace("NAME", given).replace("ENCODED", encoded)
        (tmp_path / "data.py").write_text(code)
        job = JOB.format(source="data.py:pairs").replace("length = 8", "").partition("[units]")[0]
        job += '[objective]\nloss = "perplexity"\nmetrics = ["perplexity", "next_token"]\n'
        job += '[result]\nform = "module"\n[budget]\nparams = 0.9\n'
    (tmp_path / "job.toml").write_text(job)
    config = read_config(tmp_path / "job.toml")
    graph = trace_job(config)
    with open_study(config, graph) as study:
        study.run(4, config.budget)
        plan = study.plan(finalists=1)
    _, written = write_weights(config, graph, plan)
    assert plan.measured["report"].metrics["perplexity"] > 1
    assert "perplexity" in (written / "README.md").read_text()


def test_a_first_job_is_written(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a folder and a text, with a quarter less of what is no embedding."""
    labels = ["layers.0 attention", "layers.0 mlp", "layers.0 mlp gate_proj"]
    traced = SimpleNamespace(units=[SimpleNamespace(label=label) for label in labels])
    monkeypatch.setattr(init, "trace", lambda *_: traced)
    monkeypatch.chdir(checkpoint)
    (checkpoint / "long.txt").write_text(SENTENCE * 800)
    said: list[str] = []
    init.write_job("hf:checkpoint", "long.txt", None, Path("first.toml"), said.append)
    assert "Units: 2" in said
    config = read_config("first.toml")
    assert config.data == replace(
        config.data, source=f"text:{checkpoint / 'long.txt'}", tokenizer=config.model.source
    )
    assert config.model.source == f"hf:{checkpoint / 'checkpoint'}"
    assert (config.result.form, config.result.recovery) == ("module", "linear")
    assert config.units.only == ("*attention", "*mlp")
    assert config.budget is not None
    assert 0.75 < float(str(config.budget.params)) < 1


def test_a_package_may_hold_its_checkpoint_one_folder_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "holder" / "model"
    inner.mkdir(parents=True)
    (tmp_path / "holder" / "__init__.py").touch()
    (inner / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    assert located("hf:holder") == (inner, {})


def test_a_checkpoint_is_inspected_by_tokens(checkpoint: Path) -> None:
    source = f"hf:{checkpoint / 'checkpoint'}"
    graph = trace_named(source, "8", None, "branch")
    assert {"layers.0 attention", "layers.0 mlp"} <= {unit.label for unit in graph.units}
    assert graph.program.args[0].shape == (1, 8)
    with pytest.raises(ConfigError, match="number of tokens"):
        trace_named(source, "3,8,8", None, "branch")


def test_likeness_is_the_divergence_from_the_unpruned_model(checkpoint: Path) -> None:
    config = read_config(checkpoint / "job.toml")
    model = load_model(config.model)
    batches = load_batches(config.data, config.data.search)
    ((inputs, targets),) = batches
    logits = model(**inputs).logits.detach()
    losses = {}
    for most in (1, 16, 128):
        objective = ew.Objective(ew.imitated(model, batches, most), loss="likeness")
        (answers,) = (found for _, found in objective.splits["search"])
        assert float(unlikeness(logits, answers).abs().max()) < 1e-5
        losses[most] = unlikeness(logits.flip(-1), answers)
    known = (targets != IGNORED).float()
    p, q = logits.log_softmax(-1), logits.flip(-1).log_softmax(-1)
    wanted = ((p.exp() * (p - q)).sum(-1) * known).sum(1) / known.sum(1)
    assert torch.allclose(losses[128], wanted, atol=1e-4)
    assert (losses[1] <= losses[16] + 1e-6).all()
    assert (losses[16] <= losses[128] + 1e-6).all()


def unlikeness(logits: torch.Tensor, targets: object) -> torch.Tensor:
    return LOSSES["likeness"]({"logits": logits}, targets)


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def with_code(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModel": "own.Model"}})
    )


def half_downloaded(folder: Path) -> None:
    shards = {"lm_head.weight": "model-00001-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def as_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def fewer_tokens(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 100}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_config, "no config.json"),
        (with_code, "code of its own.*trust_remote_code = true"),
        (half_downloaded, "not downloaded whole: it lacks model-00001-of-00002"),
        (as_pointer, "not downloaded whole: it lacks model.safetensors"),
        (without_tokenizer, "no tokenizer that can be used.*tokenizer"),
        (fewer_tokens, "gives token 121, and the model knows 100"),
        (shutil.rmtree, "There is no checkpoint"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_told(
    checkpoint: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path / "checkpoint")
    config = read_config(tmp_path / "job.toml")

    def read() -> None:
        load_batches(config.data, config.data.search)
        load_model(config.model)

    with pytest.raises(ConfigError, match=message):
        read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n ", "0 tokens"),
        ("short", "5 tokens, and a sequence 8.*length"),
        (None, "There is no text"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
    ],
)
def test_text_that_cannot_be_used_is_told(
    data: DataSection, tmp_path: Path, text: str | bytes | None, message: str
) -> None:
    path = tmp_path / "text.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        load_batches(replace(data, source=f"text:{path}"), Rows(0, 2))


def test_a_text_without_a_checkpoint_wants_a_tokenizer(data: DataSection) -> None:
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        load_batches(replace(data, tokenizer=None), Rows(0, 1))
