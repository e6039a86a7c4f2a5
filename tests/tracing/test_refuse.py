"""Bad input: each is refused with the place and a way out."""

import functools

import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.errors import TooLargeError, TraceError
from edgewise.tracing import capture


class Loop(nn.Module):
    def forward(self, x):
        for _ in range(60):
            x = x + 1.0
        return x


class OnlyTrains(nn.Module):
    def forward(self, x):
        if not self.training:
            raise RuntimeError("no inference yet")
        return x


class ByValue(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x) if x.max() > 3 else x


def quantised() -> nn.Module:
    with torch.no_grad():
        return torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(4, 4)), {nn.Linear}, dtype=torch.qint8
        )


def sparse() -> nn.Module:
    model = nn.Linear(4, 4)
    model.weight = nn.Parameter(model.weight.detach().to_sparse())
    return model


class DynamicCache:
    """What a language model returns beside its scores."""


class Cached(nn.Linear):
    def forward(self, x):
        return super().forward(x), DynamicCache()


class Sparse(nn.Linear):
    def forward(self, x):
        return super().forward(x).to_sparse()


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class Decorated(nn.Linear):
    """Wrapped as Hugging Face's are; no front end can follow it, so that both say why."""

    @decorated
    def forward(self, x, a=None, b=None, c=None, d=None, **options):
        return super().forward(x) if x.max() > 3 else x


def rounded() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).train()
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    return torch.ao.quantization.prepare_qat(model)


X = torch.randn(2, 4)
CASES = {
    "shape": (lambda: nn.Linear(4, 4), torch.randn(2, 5), r"eval mode on .* shape \(2, 5\)"),
    "nothing": (lambda: nn.Linear(4, 4), (), "hold no tensor"),
    "by_name": (lambda: nn.Linear(4, 4), {"input": X}, "got dict.*`kwargs`"),
    "no_module": (lambda: "a model", X, "takes an nn.Module, got str"),
    "weights_on_meta": (
        lambda: nn.Linear(4, 4, device="meta"),
        X,
        "'weight' is on the meta device",
    ),
    "input_on_meta": (lambda: nn.Linear(4, 4), X.to("meta"), "input is on the meta device"),
    "lazy": (lambda: nn.LazyLinear(4), X, "'weight' is not initialised yet"),
    "compiled": (lambda: torch.compile(nn.Linear(4, 4)), X, "compiled module.*original nn.Module"),
    "scripted": (lambda: torch.jit.script(nn.Linear(4, 4)), X, "TorchScript.*original nn.Module"),
    "wrapped": (lambda: nn.DataParallel(nn.Linear(4, 4)), X, r"DataParallel.*`\.module`"),
    "no_examples": (lambda: nn.Linear(4, 4), X[:0], "no examples.*Pass at least one"),
    "no_batch": (
        lambda: nn.Sequential(nn.Conv2d(3, 3, 1)),
        torch.randn(3, 8, 8),
        r"convolution at .* without a batch, of shape \(3, 8, 8\).*unsqueeze",
    ),
    "cache": (lambda: Cached(4, 4), X, r"returns a DynamicCache.*'use_cache': False"),
    "sparse_output": (lambda: Sparse(4, 4), X, "output of Sparse is sparse"),
    "fake_quantised": (rounded, X, "FakeQuantize.*quantisation-aware.*Prune the model before"),
    "decorated": (lambda: Decorated(4, 4), X, "does not see the arguments of its forward"),
    "quantised": (quantised, X, "Module '0' is quantised.*floating point"),
    "sparse_weight": (sparse, X, r"'weight' is sparse.*to_dense"),
    "sparse_input": (lambda: nn.Linear(4, 4), X.to_sparse(), r"input is sparse.*to_dense"),
    "train_only": (OnlyTrains, X, "OnlyTrains fails in eval mode.*no inference yet"),
    "by_value": (ByValue, X, r"test_refuse\.py:\d+ \(return .*x\.max\(\) > 3.*leaves="),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_bad_input_is_explained(name: str) -> None:
    make, args, message = CASES[name]
    with pytest.raises(TraceError, match="(?s)" + message) as caught:
        ew.trace(make(), args)
    assert "co_varnames" not in str(caught.value)


def test_a_network_too_large_to_search_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MOST_OPERATORS", 50)
    with pytest.raises(TooLargeError, match=r"6\d operators.*'the model'.*leaf"):
        ew.trace(Loop(), X)


@pytest.mark.accelerator
def test_inputs_on_another_device_are_refused() -> None:
    with pytest.raises(TraceError, match=r"input is on cpu, the model on cuda.*\.to\(device\)"):
        ew.trace(nn.Linear(4, 4).cuda(), X)
