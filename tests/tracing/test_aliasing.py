"""Writes in place: a traced network is right about them, or refused."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.errors import TraceError


class Layers(nn.Module):
    """Layers for functions that write in place to call."""

    def __init__(self, forward=None) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.relu, self.drop, self.same = nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Identity()
        self.register_buffer("shift", torch.linspace(-1, 1, 6))
        self.register_buffer("calls", torch.zeros(()))
        self.body = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def written(share):
    """A network that writes into what `share` gives of `h`, and reads `h` afterwards."""

    def forward(self, x):
        h = self.a(x)
        y = share(self, h)
        y.relu_()
        return x + self.b(h) + self.c(h * 2) + y.reshape(-1)[:1]

    return Layers(forward)


SHARING = {
    "view": lambda self, h: h.view(-1, 2, 3),
    "flatten": lambda self, h: h.flatten(),
    "chunk": lambda self, h: h.chunk(2, 1)[0],
    "split": lambda self, h: h.split(4, 1)[1],
    "slice": lambda self, h: h[:, 1:3],
    "row": lambda self, h: h[0],
    "transpose": lambda self, h: h.t(),
    "unsqueeze": lambda self, h: h[:, None],
    "contiguous": lambda self, h: h.contiguous(),
    "detach": lambda self, h: h.detach(),
    "float": lambda self, h: h.float(),
    "to": lambda self, h: h.to(torch.float32),
    "dropout": lambda self, h: self.drop(h),
    "functional dropout": lambda self, h: F.dropout(h, 0.5, self.training),
    "identity": lambda self, h: self.same(h),
    "view of a view": lambda self, h: h.view(-1, 2, 3)[:, 0],
}


def right(model: nn.Module, graph: ew.Graph, *batches: int) -> None:
    """Assert that the traced network gives what the model gives, relative to its scale."""
    generator = torch.Generator().manual_seed(1)
    for batch in batches or (2, 5):
        x = torch.randn(batch, 6, generator=generator)
        with torch.no_grad():
            expected = model.eval()(x.clone())
            found = ew.masked(graph, graph.empty).eval()(x.clone())
        scale = expected.abs().max()
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", SHARING)
def test_a_write_that_others_see(kind: str) -> None:
    """torch.fx says so; torch.export gets it right, however small the outputs are."""
    inner = written(SHARING[kind])
    model = Layers(lambda self, x: inner.body(self, x) * 1e-6)
    with pytest.raises(TraceError, match=r"test_aliasing.py:\d+\) writes into .* shares"):
        ew.trace(model, torch.zeros(2, 6), frontend="torch.fx")
    graph = ew.trace(model, torch.zeros(2, 6), granularity="raw")
    assert graph.frontend == "torch.export"
    right(model, graph)


def test_a_write_that_neither_front_end_can_express() -> None:
    with pytest.raises(TraceError, match=r"shares(.|\n)*The other front end fails too"):
        ew.trace(written(lambda self, h: h.data), torch.randn(2, 6))


def another_name(self, x):
    h = self.a(x)
    k = h
    h += self.b(x)
    return x + self.c(k) + h


def added_before(self, x):
    h = self.a(x)
    y = self.same(h)
    h += x
    return self.b(y) + h


def numbers(self, x):
    n = x.shape[1]
    m = n
    m += 1
    return x + self.a(x) * n + self.b(x) * m


def positional(self, x):
    h = self.a(x)
    y = F.relu(h, True)
    return x + self.b(h) + y


def into_out(self, x):
    h = self.a(x)
    torch.add(h, 1.0, out=h)
    return x + self.b(h)


def all_kinds(self, x):
    h = self.a(x)
    h -= 0.5
    h *= 2
    h /= 3
    h **= 2
    h %= 0.7
    h //= 0.1
    return x + self.b(h)


@pytest.mark.parametrize(
    "forward", [another_name, added_before, numbers, positional, into_out, all_kinds]
)
def test_augmented_assignment_is_followed(forward) -> None:
    model = Layers(forward)
    right(model, ew.trace(model, torch.randn(2, 6), granularity="raw"))


@pytest.mark.parametrize("forward", [added_before])
def test_torch_fx_knows_that_augmented_assignment_writes(forward) -> None:
    with pytest.raises(TraceError, match="shares"):
        ew.trace(Layers(forward), torch.randn(2, 6), frontend="torch.fx")


def test_another_name_of_a_value_sees_writes_into_it() -> None:
    model = Layers(another_name)
    right(model, ew.trace(model, torch.randn(2, 6), granularity="raw", frontend="torch.fx"))


def in_place_blocks(self, x):
    y = self.relu(self.a(x))
    y = self.b(y)
    y += x
    y = self.relu(y)
    z = self.c(self.drop(y))
    z += y
    return self.relu(z).mul_(2).add_(1)


def last_reader(self, x):
    h = self.a(x)
    y = h.view(-1, 2, 3)
    return x + self.b(y.relu_().flatten(1))


def other_half(self, x):
    left, right = self.a(x).chunk(2, 1)
    left.relu_()
    return x + self.b(torch.cat([left, right], 1))


@pytest.mark.parametrize("forward", [in_place_blocks, last_reader, other_half, positional])
def test_writes_that_nobody_else_sees_stay_with_torch_fx(forward) -> None:
    model = Layers(forward)
    graph = ew.trace(model, torch.randn(2, 6), granularity="raw")
    assert graph.frontend == "torch.fx"
    right(model, graph)


def input_itself(self, x):
    x -= 0.5
    return x + self.a(x)


def input_in_part(self, x):
    x[:, 0] = 0.0
    return x + self.a(x)


def input_by_view(self, x):
    x.view(-1).relu_()
    return x + self.a(x)


def zeroed(self, x):
    h = self.a(x)
    h.view(-1, 2, 3)[:, 0].zero_()
    return x + self.b(h)


def by_an_operator_without_a_method(self, x):
    h = self.a(x)
    F.leaky_relu_(h[:, :3], 0.5)
    F.leaky_relu_(h)
    return x + self.b(h)


@pytest.mark.parametrize("forward", [zeroed, by_an_operator_without_a_method])
def test_torch_export_makes_writes_functional(forward) -> None:
    model = Layers(forward)
    for frontend in (None, "torch.export"):
        right(model, ew.trace(model, torch.randn(2, 6), granularity="raw", frontend=frontend))


@pytest.mark.parametrize("forward", [input_itself, input_in_part, input_by_view])
def test_a_written_input(forward) -> None:
    model, x = Layers(forward), torch.randn(2, 6)
    before = x.clone()
    graph = ew.trace(model, x, granularity="raw")
    right(model, graph)
    ew.masked(graph, graph.empty)(x)
    assert torch.equal(x, before)


def moving_buffer(self, x):
    self.shift.add_(1.0)
    return x + self.a(x) * self.shift


def moving_buffer_in_part(self, x):
    self.shift[0] += 1.0
    return x + self.a(x) * self.shift


def moving_buffer_by_view(self, x):
    self.shift.view(2, 3).mul_(0.5)
    return x + self.a(x) * self.shift


def moving_weight(self, x):
    self.a.weight.data.mul_(0.5)
    return x + self.a(x)


@pytest.mark.parametrize(
    "forward", [moving_buffer, moving_buffer_in_part, moving_buffer_by_view, moving_weight]
)
def test_state_that_outputs_depend_on_is_refused(forward) -> None:
    model = Layers(forward)
    with pytest.raises(TraceError):
        ew.trace(model, torch.randn(2, 6), granularity="raw")


def test_a_counter_of_calls_is_no_reason_to_refuse() -> None:
    def forward(self, x):
        self.calls.add_(1)
        return x + self.a(x)

    model = Layers(forward)
    graph = ew.trace(model, torch.randn(2, 6), granularity="raw")
    right(model, graph)
    assert "add_" not in graph.program.module.code
    assert float(ew.masked(graph, graph.empty).network.calls) == 0


def in_place(self, x):
    self.calls.add_(1)
    return x + self.a(x)


def replaced(self, x):
    self.calls = self.calls + 1
    return x + self.a(x)


@pytest.mark.parametrize("forward", [in_place, replaced])
def test_tracing_leaves_buffers_as_they_were(forward) -> None:
    model = Layers(forward)
    buffer = model.calls
    graph = ew.trace(model, torch.randn(2, 6), granularity="raw")
    assert model.calls is buffer
    assert float(buffer) == 0
    right(model, graph)


def test_an_operator_that_writes_without_saying_so_is_refused() -> None:
    class Quiet(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu_()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.quiet = nn.Linear(6, 6), Quiet()

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return y + self.quiet(y)

    ew.register(Quiet, ew.Rule("quiet", ew.absence.join))
    try:
        with pytest.raises(TraceError, match=r"'quiet' .*writes into its input"):
            ew.trace(Outer(), torch.randn(2, 6), leaves=[Quiet])
    finally:
        del ew.ops.TABLE.rules["quiet"], ew.ops.TABLE.targets[Quiet]


NEW = ["self.a({})", "self.b({}) * 0.5", "torch.tanh({})", "{} + 1"]
SHARED = [
    "{}.view(-1, 6)",
    "{}.contiguous()",
    "{}.detach()",
    "{}.float()",
    "self.drop({})",
    "self.same({})",
    "{}.view(-1, 2, 3).flatten(1)",
    "{}.chunk(1, 1)[0]",
    "{}[:]",
    "{}.t().t()",
    "{}[:, None].squeeze(1)",
    "{}.unflatten(1, (3, 2)).transpose(1, 2).transpose(1, 2).reshape(-1, 6)",
    "F.relu({}, True)",
    "self.relu({})",
    "{}.mul_(0.5)",
]
WRITES = [
    "{}.relu_()",
    "{} += {}",
    "{} *= 0.5",
    "{}[:, :3].add_(1)",
    "{}[:, 2:].mul_(-1)",
    "{}.view(-1, 2, 3)[:, 0].zero_()",
    "{}.add_({})",
    "self.relu({})",
    "F.leaky_relu_({})",
    "{}.t().neg_()",
    "{}[:, 0] = 1",
    "torch.mul({}, 2, out={})",
]


@st.composite
def programs(draw) -> str:
    """The body of a forward that makes values, some in shared memory, and writes into them."""
    names, lines = ["x"], []
    for _ in range(draw(st.integers(2, 7))):
        kind = draw(st.sampled_from([NEW, SHARED, SHARED, WRITES, WRITES]))
        template = draw(st.sampled_from(kind))
        source = [draw(st.sampled_from(names)) for _ in range(template.count("{}"))]
        line = template.format(*source)
        if kind is WRITES:
            lines.append(line)
        else:
            names.append(f"v{len(names)}")
            lines.append(f"{names[-1]} = {line}")
    read = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
    lines.append("return self.c(x) + " + " + ".join(f"{n} * {i + 2}" for i, n in enumerate(read)))
    return "\n".join(lines)


def random_network(body: str) -> nn.Module:
    code = "def forward(self, x):\n" + "\n".join(f"    {line}" for line in body.splitlines())
    place = {"torch": torch, "F": F}
    exec(code, place)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Layers(place["forward"])


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_random_programs_are_right_or_refused(body: str) -> None:
    model = random_network(body)
    try:
        graph = ew.trace(model, torch.zeros(2, 6), granularity="raw")
    except TraceError:
        return
    right(model, graph)
