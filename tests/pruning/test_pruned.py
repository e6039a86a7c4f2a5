"""What a user does with a pruned model: devices and dtypes, hooks, modes, compile, copy, DDP."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.errors import EdgewiseWarning, VerificationError
from edgewise.pruning import verify
from edgewise.pruning.verify import TOLERANCE, compare
from edgewise.testing import laws
from zoo import build


class Modal(nn.Module):
    """Everything that depends on the mode, in a function and in a module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        x = F.dropout(self.first(x), 0.5, self.training)
        x = x + F.dropout(self.inner(x), 0.5, training=False)  # never active
        x = F.batch_norm(x, self.mean, self.var, training=self.training)
        y = x.flatten(2).transpose(1, 2)
        p = 0.9 if self.training else 0.0
        return x.mean((2, 3)) + F.scaled_dot_product_attention(y, y, y, dropout_p=p).mean(1)


def pruned(name: str, dtype: torch.dtype = torch.float32) -> tuple[ew.Graph, ew.Mask]:
    model, args = build(name)
    graph = ew.trace(model.to(dtype), tuple(a.to(dtype) for a in args))
    return graph, graph.mask([0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    for name in ("residual", "shuffle"):
        graph, mask = pruned(name, dtype)
        small = ew.prune(graph, mask)
        assert {p.dtype for p in small.parameters()} == {dtype}
        worst, allowed = compare(ew.masked(graph, mask), small, graph.program.args)
        assert worst <= allowed == TOLERANCE[dtype]


def test_complex_outputs_agree_to_rounding_and_infinities_have_a_sign() -> None:
    value = torch.tensor([1 + 2j, 3 - 4j])
    assert 0 < verify.relative_difference(value, value * (1 + 1e-6)) < TOLERANCE[value.dtype]
    assert verify.relative_difference(value, value * 1.1) > 0.09
    endless = torch.tensor([1.0, torch.inf, torch.nan])
    assert verify.relative_difference(endless, endless.clone()) == 0.0
    assert verify.relative_difference(endless, endless * torch.tensor([1, -1, 1])) == torch.inf


def test_modes_are_kept_module_by_module() -> None:
    model = Modal().train()
    model.inner[1].eval()  # a frozen batch norm
    graph = ew.trace(model, torch.randn(2, 3, 4, 4))
    small = ew.prune(graph, graph.empty)
    assert small.training
    assert not small.inner.get_submodule("1").training
    assert small.inner.get_submodule("2").training


def test_functions_follow_the_mode() -> None:
    model, x = Modal(), torch.randn(8, 3, 4, 4)
    graph = ew.trace(model, x)
    small = ew.prune(graph, graph.empty)
    code = small.code
    assert "training = self.training" in code
    for seed in range(3):
        for train in (True, False):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                expected = copy.deepcopy(model).train(train)(x)
                torch.manual_seed(seed)
                found = copy.deepcopy(small).train(train)(x)
            torch.testing.assert_close(found, expected)


def test_it_compiles_copies_and_prints() -> None:
    graph, mask = pruned("residual")
    small = ew.prune(graph, mask).eval()
    args = graph.program.args
    expected = small(*args)
    assert 'self.stem, "0")(x)' in small.code
    assert torch.equal(copy.deepcopy(small)(*args), expected)
    torch.testing.assert_close(torch.compile(small, backend="aot_eager")(*args), expected)
    exported = torch.export.export(small, args).module()
    torch.testing.assert_close(exported(*args), expected)


def test_hooks_are_kept() -> None:
    model, args = build("residual")
    seen: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    graph = ew.trace(model, args, granularity=("edge", "layer"))
    small = ew.prune(graph, graph.mask([0]))
    seen.clear()
    small(*args)
    convolutions = [n for n, m in small.named_modules() if isinstance(m, nn.Conv2d)]
    assert sorted(seen) == sorted(convolutions)
    assert len(seen) < sum(isinstance(m, nn.Conv2d) for m in model.modules())


def test_names_stay_readable() -> None:
    model, args = build("residual")
    graph = ew.trace(model, args, granularity=("edge", "layer"))
    small = ew.prune(graph, graph.mask([0]))
    kept, all_names = small.state_dict(), model.state_dict()
    assert 0 < len(kept) < len(all_names)
    assert set(kept) <= set(all_names)


def test_it_trains_under_ddp(tmp_path: Path) -> None:
    graph, mask = pruned("residual")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(ew.prune(graph, mask).train())
        wrapped(*graph.program.args).square().sum().backward()
        assert all(p.grad is not None for p in wrapped.parameters())
    finally:
        torch.distributed.destroy_process_group()


class Amplified(nn.Module):
    """A network that amplifies rounding, and gives the second of its outputs in float32 always."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 1024), nn.Linear(1024, 64)

    def forward(self, x):
        y = self.last(torch.relu(self.first(x)))
        y = (y + 300) - 300
        return y, y.float()


def test_rounding_is_told_from_a_wrong_rewrite() -> None:
    """What differs in float32, but not in float64, is right; what differs there, too, is not."""
    torch.manual_seed(0)
    x = torch.randn(32, 64)
    graph = ew.trace(Amplified(), x, granularity=("hidden",), slices=3)
    full = ew.masked(graph, graph.mask([0]))
    with pytest.warns(EdgewiseWarning, match="amplifies rounding"):
        small = ew.prune(graph, graph.mask([0]))
    assert verify.rounding(full, small, (x,))
    with torch.no_grad():
        small.last.bias += 1e-4
    assert not verify.rounding(full, small, (x,))
    with pytest.raises(VerificationError, match="differs from the masked one by"):
        verify.verify(graph, graph.mask([0]), full, small)


def test_broadcast_remains_are_expanded_over_the_batch() -> None:
    """What is left of a sum may be a constant-shaped summand: it must grow to the batch."""

    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            table = self.other(x.mean(0, keepdim=True))
            return (self.layer(x) + table).view(-1, 2, 2)

    graph = ew.trace(Biased(), torch.randn(3, 4))
    mask = graph.mask(["layer"])
    laws.law_pruned_is_masked(graph, mask)
    assert ew.prune(graph, mask)(torch.randn(5, 4)).shape == (5, 2, 2)
