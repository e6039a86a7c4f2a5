"""Reading job files: defaults, paths, and what is said of every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.cli.job.config import Config, override, parse_budget, parse_model, read_config
from edgewise.cli.job.sections import EngineSection, RaySection
from edgewise.cli.job.toml_sections import Rows
from edgewise.errors import ConfigError
from edgewise.graph.budget import Budget

MODEL = '[model]\nsource = "net.py:make"\n'
DATA = '[data]\nsource = "data.parquet"\n'
BATCHNORM = '[objective]\nrecovery = "batchnorm"\n'
LINEAR = '[objective]\nrecovery = "linear"\n'


def read(folder: Path, text: str) -> Config:
    path = folder / "job.toml"
    path.write_text(text)
    return read_config(path)


def test_the_shortest_config_has_sensible_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, MODEL + DATA)
    assert config.data.splits == {
        "search": Rows(0, 500),
        "verify": Rows(500, 2500),
        "report": Rows(2500, None),
    }
    assert config.search.evaluations == 200
    assert config.budget is None
    assert config.objective.metrics == ("accuracy",)
    assert config.directory == tmp_path / "job-pruned"
    assert config.storage == f"sqlite:///{tmp_path}/job-pruned/study.db"
    assert config.name == "job"


def test_every_section_is_read(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
        [model]
        source = "torchvision:resnet18"
        arguments = { num_classes = 10 }
        weights = "w.safetensors"
        input = [3, 32, 32]
        strict = false
        [data]
        source = "torchvision:CIFAR10?root=raw&train=false"
        size = [32, 32]
        mean = [0.5, 0, 1]
        std = [1, 2, 3]
        batch = 10
        search = "0:10"
        verify = "10:15"
        report = "20:"
        """
        + '[calibration]\nsource = "train.parquet"\nrows = "0:200"\n'
        + '[objective]\nloss = "own.py:loss"\nmetrics = ["top5", "own.py:score"]\n'
        + 'recovery = "batchnorm"\n'
        + '[units]\ngranularity = ["edge"]\nonly = ["layer*"]\nexclude = ["layer1*"]\n'
        + '[budget]\nmacs = 0.7\nparams = 1000\nweight_bytes = "10MiB"\n'
        + '[search]\nevaluations = 7\nseed = 3\nsurrogate = "Linear"\nfinalists = 2\n'
        + "certify = 9\npatience = 4\n"
        + '[study]\nstorage = "sqlite:///runs/a.db"\nname = "first"\n'
        + '[output]\ndirectory = "out"\n'
        + '[engine]\nmemory = "64MiB"\nchunk = 8\nchannels_last = false\n'
        + '[ray]\naddress = "auto"\nworkers = 3\n',
    )
    assert (config.search.certify, config.search.patience) == (9, 4)
    assert config.engine == EngineSection(memory="64MiB", chunk=8, channels_last=False)
    assert config.ray == RaySection(address="auto", workers=3, threads=1)
    assert config.model.weights == tmp_path / "w.safetensors"
    assert config.model.arguments == {"num_classes": 10}
    assert config.model.input == (3, 32, 32)
    assert config.model.source == "torchvision:resnet18"
    assert config.data.source == f"torchvision:CIFAR10?root={tmp_path}/raw&train=false"
    assert config.data.mean == (0.5, 0, 1)
    assert config.calibration_data.source == str(tmp_path / "train.parquet")
    assert config.calibration_data.batch == 10
    assert config.objective.loss == f"{tmp_path}/own.py:loss"
    assert config.objective.metrics == ("top5", f"{tmp_path}/own.py:score")
    assert config.budget == Budget(macs=0.7, params=1000, weight_bytes="10MiB")
    assert isinstance(config.budget.params, int)
    assert config.storage == f"sqlite:///{tmp_path}/runs/a.db"
    assert config.directory == tmp_path / "out"
    assert config.name == "first"


def test_absolute_paths_stay(tmp_path: Path) -> None:
    text = '[model]\nsource = "/a/net.py:make"\n[data]\nsource = "/b/d.parquet"\n'
    config = read(tmp_path, text + '[study]\nstorage = "sqlite:////c/s.db?timeout=5"\n')
    assert config.model.source == "/a/net.py:make"
    assert config.data.source == "/b/d.parquet"
    assert config.storage == "sqlite:////c/s.db?timeout=5"


def test_other_databases_stay_as_they_are(tmp_path: Path) -> None:
    config = read(tmp_path, MODEL + DATA + '[study]\nstorage = "postgresql://host/db"\n')
    assert config.storage == "postgresql://host/db"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[model\nx = 1", ["not valid TOML", "line 1"]),
        (MODEL, ["section [data] is missing"]),
        (DATA, ["section [model] is missing"]),
        ("[model]\n" + DATA, ["[model] needs the key source"]),
        (MODEL + DATA + "[serch]\nseed = 1\n", ["unknown section [serch]", "'search'"]),
        (
            MODEL + DATA + "[search]\nevaluation = 1\n",
            ["[search]", "'evaluation'", "'evaluations'"],
        ),
        (MODEL + DATA + "[search]\nzzz = 1\n", ["[search]", "Known: evaluations, examples, seed"]),
        ("budget = 0.7\n" + MODEL + DATA, ["[budget] must be a section", "0.7"]),
        (MODEL + DATA + '[search]\nseed = "1"\n', ["[search] seed must be a whole number", '"1"']),
        (
            MODEL + DATA + "[search]\nseed = true\n",
            ["[search] seed must be a whole number", "True"],
        ),
        (MODEL + DATA + "[search]\nseed = -1\n", ["[search] seed must be at least 0"]),
        (
            MODEL + DATA + '[search]\nsurrogate = "pathsum"\n',
            ["surrogate must be one of auto", "'PathSum'"],
        ),
        (
            MODEL + DATA + '[search]\nsurrogate = "GP"\n',
            ["surrogate must be one of auto", "PathSum"],
        ),
        (MODEL + DATA + "[search]\nevaluations = 0\n", ["evaluations must be at least 1"]),
        (MODEL + DATA + "[search]\nevaluations = 1.5\n", ["must be a whole number, got 1.5"]),
        (MODEL + "strict = 1\n" + DATA, ["[model] strict must be true or false, got 1"]),
        (MODEL + "input = 3\n" + DATA, ["[model] input must be a list, got 3"]),
        (MODEL + "input = [3, 0]\n" + DATA, ["[model] input[1] must be at least 1, got 0"]),
        (MODEL + "arguments = 1\n" + DATA, ["[model] arguments must be a table"]),
        ('[model]\nsource = "resnet18"\n' + DATA, ["[model] source must be FILE.py:FUNCTION"]),
        (MODEL + "[data]\nsource = 3\n", ["[data] source must be text, got 3"]),
        (MODEL + DATA + 'search = "0-500"\n', ["[data] search must be a range", '"0-500"']),
        (MODEL + DATA + "search = 5\n", ["[data] search must be a range", "got 5"]),
        (MODEL + DATA + 'search = "5:5"\n', ["[data] search must hold at least one row"]),
        (MODEL + DATA + 'search = "0:501"\n', ["splits must be disjoint", "0:501", "500:2500"]),
        (MODEL + DATA + 'verify = "2400:"\nreport = "500:1000"\nsearch = "0:"\n', ["disjoint"]),
        (MODEL + DATA + "mean = [0.5]\n", ["mean and std", "[data]"]),
        (MODEL + DATA + "mean = [0.5]\nstd = [0]\n", ["std above 0"]),
        (MODEL + DATA + "size = [32]\n", ["[data] size must be [height, width]"]),
        (
            MODEL + DATA + '[objective]\nloss = "crossentropy"\n',
            ["[objective] loss", "cross_entropy"],
        ),
        (
            MODEL + DATA + '[objective]\nmetrics = ["acuracy"]\n',
            ["metrics 'acuracy'", "'accuracy'"],
        ),
        (
            MODEL + DATA + '[objective]\nrecovery = "bn"\n',
            ["recovery must be one of none, batchnorm, linear"],
        ),
        (MODEL + DATA + BATCHNORM, ["needs a section [calibration]"]),
        (
            MODEL + DATA + LINEAR + '[calibration]\nsource = "train.parquet"\nrows = "5:25"\n',
            ['rows "5:25" are 20 examples', "give at least 32"],
        ),
        (MODEL + DATA + BATCHNORM + "[calibration]\n", ["[calibration] needs the key rows"]),
        (MODEL + DATA + '[calibration]\nrows = "3000:"\n', ["[calibration] has no effect"]),
        (
            MODEL + DATA + BATCHNORM + '[calibration]\nrows = "0:10"\n',
            ["[calibration] rows 0:10 overlap the search split 0:500"],
        ),
        (
            MODEL + DATA + BATCHNORM + '[calibration]\nsource = "./data.parquet"\nrows = "3000:"\n',
            ["overlap the report split"],
        ),
        (
            MODEL + DATA + '[units]\ngranularity = ["edges"]\n',
            ["granularity[0] must be one of branch, edge", "'edge'?"],
        ),
        (MODEL + DATA + '[units]\nonly = "layer*"\n', ["[units] only must be a list"]),
        (MODEL + DATA + "[budget]\n", ["[budget]", "at least one limit"]),
        (MODEL + DATA + "[budget]\nmac = 0.7\n", ["[budget] has no key 'mac'", "'macs'"]),
        (MODEL + DATA + "[budget]\nmacs = -1\n", ["[budget]", "positive"]),
        (
            MODEL + DATA + f"[budget]\nmacs = 0x{'f' * 300}\n",
            ["macs must be a positive number"],
        ),
        (MODEL + DATA + f"[search]\nseed = 0x{'f' * 300}\n", ["seed must be at most 92233"]),
        (MODEL + DATA + f"[search]\nseed = 0x{'f' * 9000}\n", ["a number in it cannot be read"]),
        (
            MODEL + f"arguments = {{ a = {'[' * 250}{']' * 250} }}\n" + DATA,
            ["nested too deeply"],
        ),
        (MODEL + DATA + "[budget]\nmacs = true\n", ["[budget] macs must be a number or text"]),
        (MODEL + DATA + '[budget]\nmacs = "3MB"\n', ["[budget]", '"3MB"', "K, M, G, T, %"]),
        (MODEL + DATA + '[budget]\nweight_bytes = "3M"\n', ["[budget]", '"3M"', "MB, GB, KiB"]),
        (MODEL + DATA + "[budget]\nlatency = 8\n", ["[budget]", '"8ms"']),
        (
            MODEL + DATA + '[study]\nstorage = "runs.db"\n',
            ["[study] storage must be a database URL"],
        ),
        (MODEL + DATA + '[study]\nstorage = "sqlite://"\n', ["[study] storage must name a file"]),
        (MODEL + DATA + '[engine]\nmemory = "1 gig"\n', ["[engine]", '"512MiB"', "1 gig"]),
        (MODEL + DATA + "[engine]\nmemory = 1024\n", ["[engine] memory must be text, got 1024"]),
        (MODEL + DATA + "[engine]\nchunk = 0\n", ["[engine] chunk must be a whole number"]),
        (MODEL + DATA + "[engine]\npieces = 8\n", ["[engine] has no key 'pieces'", "'piece'"]),
        (MODEL + DATA + "[ray]\nworkers = 0\n", ["[ray] workers must be at least 1"]),
        (MODEL + DATA + "[ray]\ngpus = -1\n", ["[ray] gpus must be at least 0"]),
        (MODEL + DATA + "[ray]\ngpus = nan\n", ["[ray] gpus must be a finite number"]),
        (MODEL + DATA + "[ray]\nadress = 1\n", ["[ray] has no key 'adress'", "'address'"]),
        (MODEL + DATA + "[output]\ndirectory = 1\n", ["[output] directory must be text"]),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    for word in ["job.toml", *words]:
        assert word in str(error.value)
    assert str(error.value).endswith((".", "?"))


def test_calibration_rows_may_overlap_when_the_file_is_another(tmp_path: Path) -> None:
    text = MODEL + DATA + BATCHNORM + '[calibration]\nsource = "train.parquet"\nrows = "0:10"\n'
    assert read(tmp_path, text).calibration_data.source == str(tmp_path / "train.parquet")


def test_a_missing_or_binary_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_config(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("0:5", "5:9", False), ("0:6", "5:9", True), ("5:", "0:5", False), ("5:", "9:", True)],
)
def test_overlap_is_symmetric(a: str, b: str, expected: bool) -> None:
    first, second = Rows.parse(a), Rows.parse(b)
    assert first.overlaps(second) is second.overlaps(first) is expected
    assert str(first) == a


def test_budgets_on_the_command_line() -> None:
    budget = parse_budget(["macs=0.7", "params = 100", "latency=8 ms", "units=75%"])
    assert budget == Budget(macs=0.7, params=100, latency="8 ms", units="75%")
    assert isinstance(budget.params, int)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("mac=0.7", "'macs'"),
        ("macs", "macs=0.7"),
        ("macs=x", "NUMBER"),
        ("macs=0", "positive"),
        ("latency=8", "8ms"),
        ("macs=1X", "K, M, G, T, %"),
        ("macs=120%", "more than the whole"),
    ],
)
def test_bad_budgets_on_the_command_line(text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parse_budget([text])


def test_a_quantity_is_limited_once() -> None:
    with pytest.raises(ConfigError, match=r"limits macs twice, to 0\.7 and 2M"):
        parse_budget(["macs=0.7", "macs=2M"])


def test_override_replaces_only_what_is_given(tmp_path: Path) -> None:
    config = read(tmp_path, MODEL + DATA + "[budget]\nmacs = 0.7\n[search]\nseed = 4\n")
    changed = override(config, evaluations=9)
    assert (changed.search.evaluations, changed.search.seed, changed.budget) == (
        9,
        4,
        config.budget,
    )
    assert override(config, budget=["params=0.5"], seed=0).budget == Budget(params=0.5)
    assert override(config, seed=0).search.seed == 0


def test_ray_on_the_command_line_keeps_what_the_file_says_of_workers(tmp_path: Path) -> None:
    plain = read(tmp_path, MODEL + DATA)
    assert override(plain).ray is None
    assert override(plain, ray="").ray == RaySection()
    config = read(tmp_path, MODEL + DATA + '[ray]\naddress = "auto"\nthreads = 2\n')
    assert override(config).ray == override(config, ray="").ray == config.ray
    assert override(config, ray="h:1").ray == RaySection(address="h:1", threads=2)


def test_a_model_named_on_the_command_line_is_checked(tmp_path: Path) -> None:
    section = parse_model({"source": "a.py:f", "input": [1, 8]}, tmp_path)
    assert (section.source, section.input) == (f"{tmp_path}/a.py:f", (1, 8))
    with pytest.raises(ConfigError, match=r"source must be FILE\.py:FUNCTION"):
        parse_model({"source": "resnet18"}, tmp_path)
