"""Files of ours: a full disk, permissions, links, kills, and places that are no files."""

import csv
import io
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import edgewise as ew
import jobs
from edgewise.cli.job.evaluations_file import write_evaluations
from edgewise.errors import EdgewiseError, LatencyError, PlanError
from edgewise.evaluation.records import Evaluation
from edgewise.latency.table import LatencyTable, Target
from edgewise.report import render
from edgewise.report import write as write_report
from edgewise.report.charts.matplotlib import save as save_figure
from edgewise.values import files


@pytest.fixture(scope="module")
def plan() -> ew.Plan:
    return jobs.plan_of(None, evaluations=16)


@contextmanager
def full_disk(room: int = 512) -> Iterator[None]:
    """Files cannot grow beyond `room` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def table() -> LatencyTable:
    target = Target("a machine", "cpu", 1, 1, "float32", "2.6")
    return LatencyTable("f" * 64, target, 1.0, ((0.0, 0.0, 0.0, 0.0),) * 99, ())


def test_a_full_disk_keeps_the_old_file(plan: ew.Plan, table: LatencyTable, tmp_path: Path) -> None:
    graph, _ = jobs.make()
    small = ew.prune(graph, plan)
    figure = ew.Study(*jobs.make()).plot
    page = render(graph, [], plan, title="t")
    writers = {
        "plan.json": (lambda p: plan.save(p), PlanError),
        "table.json": (table.save, LatencyError),
        "small.safetensors": (lambda p: ew.save(small, p), PlanError),
        "page.html": (lambda p: write_report(p, page), EdgewiseError),
    }  # fmt: skip
    assert figure is not None
    for name, (write, kind) in writers.items():
        path = tmp_path / name
        write(path)
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        with full_disk(), pytest.raises(kind, match="cannot be written to"):
            write(path)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before, name


def test_a_full_disk_is_an_error_of_the_file_and_not_of_the_draft(tmp_path: Path) -> None:
    path = tmp_path / "text"
    with full_disk(4), pytest.raises(OSError, match="too large") as caught:
        files.write_text(path, "more than four")
    assert caught.value.filename == str(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("umask", "wanted"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_gets_what_the_umask_allows(tmp_path: Path, umask: int, wanted: int) -> None:
    before = os.umask(umask)
    try:
        files.write_text(tmp_path / "text", "new")
    finally:
        os.umask(before)
    assert mode(tmp_path / "text") == wanted


@pytest.mark.parametrize("kept", [0o600, 0o664, 0o640, 0o400])
def test_a_file_keeps_its_permissions(plan: ew.Plan, tmp_path: Path, kept: int) -> None:
    path = plan.save(tmp_path / "plan.json")
    path.chmod(kept)
    plan.save(path)
    assert mode(path) == kept


def test_a_draft_is_never_more_open_than_the_file(tmp_path: Path) -> None:
    path, seen = tmp_path / "secret", []
    path.write_text("old")
    path.chmod(0o600)
    files.write_atomically(path, lambda to: seen.append(mode(to)) or to.write_text("new"))
    assert seen == [0o600]


def test_a_link_stays_and_what_it_points_to_is_replaced(plan: ew.Plan, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    link, real = tmp_path / "plan.json", tmp_path / "store" / "real.json"
    real.write_text("old")
    link.symlink_to(Path("store") / "real.json")
    plan.save(link)
    assert link.is_symlink()
    assert ew.Plan.load(real.with_name("real.json").rename(tmp_path / "moved.json")) == plan


def test_a_link_that_leads_nowhere_makes_its_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("there")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_text() == "new"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "folder", "null"):
        with pytest.raises(OSError, match="no regular file"):
            files.write_text(tmp_path / name, "text")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


KILLED = """
import os, sys
from pathlib import Path
from edgewise.values.files import write_atomically
def write(to):
    to.write_text("half")
    os.kill(os.getpid(), 9)
write_atomically(Path(sys.argv[1]), write)
"""


def test_leftovers_of_a_kill_go_with_a_later_write(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=120)
    assert path.read_text() == "old"
    (left,) = tmp_path.glob(".plan.json.*.partial")
    other = tmp_path / ".plan.json.backup"
    other.write_text("mine")
    files.write_text(path, "new")
    assert left.exists(), "somebody may still write to it"
    old = time.time() - files.STALE - 60
    for file in (left, other):
        os.utime(file, (old, old))
    files.write_text(path, "newer")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".plan.json.backup", "plan.json"]


def test_file_and_folder_are_synced_around_the_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, replace = os.fsync, os.replace

    def syncing(handle: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def replacing(one: Path, other: Path) -> None:
        order.append("replace")
        replace(one, other)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", replacing)
    files.write_text(tmp_path / "text", "new")
    assert order == ["file", "replace", "folder"]


def test_long_names_and_failed_writers_leave_nothing(tmp_path: Path) -> None:
    files.write_text(tmp_path / ("n" * 250), "new")

    def fail(to: Path) -> None:
        to.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        files.write_atomically(tmp_path / "text", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["n" * 250]


def test_figures_and_exports_are_whole_or_not_there(tmp_path: Path) -> None:
    class Figure:
        def savefig(self, to: Path, **how: object) -> None:
            assert how["format"] == "png"
            to.write_text("half")
            raise OSError(28, "No space left on device")

    path = tmp_path / "plot.png"
    path.write_text("old")
    with pytest.raises(OSError, match="No space"):
        save_figure(Figure(), path)
    assert path.read_text() == "old"
    small = ew.prune(graph := jobs.make()[0], graph.mask([0]))
    with full_disk(), pytest.raises(EdgewiseError, match="cannot be written to"):
        ew.export(small, tmp_path / "small.pt2")
    assert [p.name for p in tmp_path.iterdir()] == ["plot.png"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1"])
def test_cells_that_a_spreadsheet_would_run_are_text(tmp_path: Path, text: str) -> None:
    record = Evaluation(
        "01", "search", None, {text: -0.5}, status="failed", error=text, origin="sampled",
        predicted=-0.25,
    )  # fmt: skip
    path = write_evaluations(tmp_path / "out.csv", [record])
    with path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(io.StringIO(file.read(), newline=""))
    assert row["error"] == f"'{text}"
    assert row[f"'{text}"] == "-0.5"
    assert row["predicted"] == "-0.25"
