"""What a config names, made real: models with their weights, losses, metrics, user functions."""

import importlib
import importlib.util
import json
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...evaluation.losses import LOSSES, METRICS, Measure
from ...values.files import read_text
from ...values.spelling import nearest
from .sections import ModelSection
from .toml_sections import HF


def load_model(section: ModelSection) -> nn.Module:
    """The model that a section names, in eval mode, with its weights, on its device.

    Raises:
        ConfigError: the source gives no module, the weights do not fit it, or there is no such
            device.
    """
    kind, _, name = section.source.partition(":")
    factories = {"torchvision": _from_torchvision, "timm": _from_timm, "hf": _from_folder}
    make = factories[kind](name) if kind in factories else load_function(section.source)
    try:
        model = make(**section.arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(_failed(section.source, error)) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{section.source} must return an nn.Module, got {type(model).__name__}.")
    if section.weights is not None:
        load_weights(model, section.weights, strict=section.strict)
    return _sent(model, section.device).eval()


def loading(section: ModelSection, weights: str) -> str:
    """Python that builds a section's pruned model again, from files of these names."""
    kind, _, name = section.source.partition(":")
    given = [f"{key}={value!r}" for key, value in section.arguments.items()]
    if kind in ("torchvision", "timm"):
        way, make = ("from torchvision import models", "models.get_model")
        if kind == "timm":
            way, make = "import timm", "timm.create_model"
        given.insert(0, repr(name))
    elif kind == "hf":
        way, make = (
            "from transformers import AutoModelForCausalLM",
            "AutoModelForCausalLM.from_pretrained",
        )
        given.insert(0, repr(name))
    else:
        path, _, make = section.source.rpartition(":")
        way = f"from {Path(path).stem} import {make}"
    text = f"import edgewise as ew\n{way}\n\n"
    if given:
        text += f"make_model = lambda: {make}({', '.join(given)})\n"
        make = "make_model"
    return f'{text}small = ew.load({make}, "plan.json", "{weights}")'


def _sent(model: nn.Module, device: str) -> nn.Module:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # what torch raises depends on the device
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"[model] device {device!r} cannot be used: {reason}") from error


def _from_torchvision(name: str) -> Callable[..., Any]:
    models = require("torchvision.models", "vision")
    _check_known("torchvision", name, models.list_models())
    return lambda **arguments: models.get_model(name, **arguments)


def _from_timm(name: str) -> Callable[..., Any]:
    timm = require("timm", "vision")
    if not timm.is_model(name):
        _check_known("timm", name, timm.list_models())
    return lambda **arguments: timm.create_model(name, **arguments)


def _from_folder(source: str) -> Callable[..., Any]:
    """What makes the model of hf:FOLDER or hf:FILE.gguf, from these files alone.

    Raises:
        ConfigError: it is no whole checkpoint.
    """
    folder, gguf = located(source)
    transformers = require("transformers", "hf")
    if not gguf:
        _require_whole(folder)

    def make(trust_remote_code: bool = False, dtype: str = "auto", **arguments: Any) -> Any:
        config = _config(folder)
        known = getattr(transformers, next(iter(config.get("architectures") or ()), ""), None)
        if config.get("auto_map") and not trust_remote_code:
            raise ConfigError(
                f"{folder} runs code of its own ({', '.join(config['auto_map'].values())}). Read "
                "it, and if you trust it, add arguments = { trust_remote_code = true } to [model]."
            )
        return (known or transformers.AutoModelForCausalLM).from_pretrained(
            folder, dtype=dtype, local_files_only=True, **gguf, **arguments,
            **({"trust_remote_code": True} if trust_remote_code else {}),
        )  # fmt: skip

    return make


def located(source: str) -> tuple[Path, dict[str, str]]:
    """The folder of a checkpoint, and the GGUF file in it where it is one.

    Raises:
        ConfigError: there is none.
    """
    path = Path(source.removeprefix(HF))
    if not path.exists() and path.name.isidentifier():
        package = importlib.util.find_spec(path.name)
        path = Path(next(iter(package.submodule_search_locations or ()))) if package else path
        inner = [config.parent for config in path.glob("*/config.json")]
        path = inner[0] if len(inner) == 1 and not (path / "config.json").exists() else path
    if path.suffix == ".gguf" and path.is_file():
        return path.parent, {"gguf_file": path.name}
    if not path.is_dir():
        raise ConfigError(
            f"There is no checkpoint {path}: [model] source is hf:FOLDER, as save_pretrained or a "
            "download wrote it, hf:FILE.gguf, or hf:PACKAGE with one of them (edgewise downloads "
            "nothing)."
        )
    files = sorted(path.glob("*.gguf"))
    if not (path / "config.json").exists():
        if len(files) != 1:
            raise ConfigError(
                f"{path} has no config.json, so that nothing says what model it holds. It is there "
                "in a folder that save_pretrained wrote."
            )
        return path, {"gguf_file": files[0].name}
    return path, {}


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        found: dict[str, Any] = json.loads(read_text(path)) if path.exists() else {}
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}.") from error
    return found


def _require_whole(folder: Path) -> None:
    """ConfigError unless all files of the weights are there, and are no pointers to them."""
    wanted = {p.name for end in ("safetensors", "bin") for p in folder.glob(f"*model*.{end}")}
    for index in folder.glob("*.index.json"):
        wanted |= set(json.loads(read_text(index))["weight_map"].values())
    small = b"version https://git-lfs"
    lacks = [
        name
        for name in sorted(wanted)
        if not (path := folder / name).exists() or path.open("rb").read(len(small)) == small
    ]
    if lacks or not wanted:
        what = f"{', '.join(lacks[:3])} of {len(wanted)} files" if lacks else "any file of weights"
        raise ConfigError(f"{folder} is not downloaded whole: it lacks {what}.")


def _check_known(library: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        near = nearest(name, known)
        hint = near if "Did you mean" in near else f" It has {len(known)} models."
        raise ConfigError(f"{library} has no model {name!r}.{hint}")


def _failed(source: str, error: Exception) -> str:
    hint = " Weights on this machine are given by --weights, or [model] weights."
    return f"{source} failed: {type(error).__name__}: {error}{hint * isinstance(error, URLError)}"


def require(module: str, extra: str) -> Any:
    """An optional package; ConfigError says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(
            f"{package} is needed for this and not installed: pip install 'edgewise[{extra}]'"
        ) from error


def parquet_file(path: Path, *columns: str) -> Any:
    """A parquet file, its schema read; ConfigError if it is none, or lacks one of the columns."""
    parquet = require("pyarrow.parquet", "data")
    if not path.is_file():
        raise ConfigError(f"There is no file {path}.")
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are one of the two
        raise ConfigError(f"{path} is not a readable parquet file: {error}") from error
    known = file.schema_arrow.names
    for name in columns:
        if name not in known:
            raise ConfigError(f"{path} has no column {name!r}.{nearest(name, known)}")
    return file


def load_function(source: str) -> Callable[..., Any]:
    """The function that FILE.py:FUNCTION names.

    Raises:
        ConfigError: the file is missing or fails, or has no such function.
    """
    file, _, name = source.rpartition(":")
    module = _load_file(Path(file))
    found = getattr(module, name, None)
    if not callable(found):
        own = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise ConfigError(f"{file} has no function {name!r}.{nearest(name, own) if own else ''}")
    return found  # type: ignore[no-any-return]


def _load_file(path: Path) -> ModuleType:
    """A Python file as a module, run once a process."""
    if not path.is_file():
        raise ConfigError(f"There is no file {path}.")
    name = f"edgewise_file_{path.stem}"  # the same wherever the folder is moved
    if name in sys.modules and sys.modules[name].__file__ == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with _siblings(path.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(_failed(str(path), error)) from error
    return module


@contextmanager
def _siblings(folder: Path) -> Iterator[None]:
    """Let a file import the files beside it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def load_weights(model: nn.Module, path: Path, *, strict: bool = True) -> None:
    """Read a safetensors file or a torch state dict (never a whole pickled model) into a model.

    Args:
        strict: whether every name must be in both; shapes must agree in any case.

    Raises:
        ConfigError: the file cannot be read, or its tensors do not fit.
    """
    state = read_state(path)
    own = model.state_dict()
    missing = sorted(own.keys() - state.keys()) if strict else []
    unexpected = sorted(state.keys() - own.keys()) if strict else []
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if state[name].shape != own[name].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": sorted(shapes)}
    problems = [f"{len(names)} {what}: {_few(names)}" for what, names in found.items() if names]
    if problems:
        raise ConfigError(
            f"{path} does not fit {type(model).__name__}; {'; '.join(problems)}."
            f"{_hint(state, own) if shapes else ' With strict = false names may differ.'}"
        )
    model.load_state_dict(state, strict=strict)


def classes_of(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> int | None:
    """How many classes weights are of, where nothing else tells them from those of a model."""
    pairs = [(state[n].shape, own[n].shape) for n in own.keys() & state.keys()]
    others = [(a, b) for a, b in pairs if a != b]
    counts = {a[0] if a[1:] == b[1:] else None for a, b in others}
    return counts.pop() if len(counts) == 1 else None


def _hint(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    count = classes_of(state, own)
    hint = f" They are of {count} classes: arguments = {{ num_classes = {count} }}"
    return "" if count is None else hint


def _few(names: Sequence[str], count: int = 4) -> str:
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a safetensors file or a torch state dict, by name; ConfigError as above."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ConfigError(f"There is no weights file {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)  # type: ignore[no-any-return]
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path} holds more than tensors, and unpickling that could run any code. Save "
            "model.state_dict() and use that file."
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise ConfigError(f"{path} is not a readable weights file: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(f"{path} is no state dict: it must map names to tensors.")
    if all(name.startswith("module.") for name in state):  # saved inside nn.DataParallel
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def load_loss(name: str) -> Measure:
    """A loss of one value a sample, by name (`cross_entropy`, ...), or FILE.py:FUNCTION."""
    return LOSSES[name] if name in LOSSES else load_function(name)


def load_metrics(names: Sequence[str]) -> dict[str, Measure]:
    """Metrics by name: `accuracy`, `top5` or FILE.py:FUNCTION, called by the function's name."""
    return {
        name.rpartition(":")[2]: METRICS[name] if name in METRICS else load_function(name)
        for name in names
    }
