"""Detectors of ultralytics in their own class: their own trainer, predict, val and export.

Ultralytics is AGPL and no dependency: `pip install ultralytics`, then `pytest -m slow` runs this.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import edgewise as ew

pytestmark = pytest.mark.slow
SIZE = 64
DATA = """
path: {folder}
train: images
val: images
names: {{0: square}}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight images of a bright square each, and where it is."""
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(8):
        pixels = random.integers(0, 80, (SIZE, SIZE, 3), dtype=np.uint8)
        x, y, side = random.integers(4, 30, 3)
        pixels[y : y + side + 8, x : x + side + 8] = 230
        image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        box = [(x + side / 2 + 4) / SIZE, (y + side / 2 + 4) / SIZE, *[(side + 8) / SIZE] * 2]
        line = " ".join(map(str, [0, *box]))
        (tmp_path / "labels" / f"{number}.txt").write_text(line + "\n")
    path = tmp_path / "data.yaml"
    path.write_text(DATA.format(folder=tmp_path))
    return path


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n"])
def test_a_detector_stays_one(name: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ultralytics = pytest.importorskip("ultralytics")
    from ultralytics.models.yolo.detect import DetectionTrainer

    monkeypatch.chdir(data.parent)
    torch.manual_seed(0)
    yolo = ultralytics.YOLO(f"{name}.yaml")
    kinds = ("edge", "hidden")
    example = (torch.rand(2, 3, SIZE, SIZE),)
    graph = ew.trace(yolo.model.eval(), example, granularity=kinds, slices=4)
    assert not graph.program.takes  # any batch will do
    widths = [unit.name for unit in graph.units if unit.kind == "hidden"]
    mask = graph.mask([*widths[:2], "model.4.m.0.cv1.conv..model.4.m.0.cv2.act"])
    small = ew.prune(graph, mask, form="module")
    before = sum(p.numel() for p in yolo.model.parameters())
    assert type(small) is type(yolo.model)
    assert sum(p.numel() for p in small.parameters()) < before

    class Trainer(DetectionTrainer):
        def get_model(self, cfg=None, weights=None, verbose=True):
            return small

    yolo.model = small
    settings = {"data": str(data), "imgsz": SIZE, "device": "cpu", "workers": 0, "plots": False}
    yolo.train(trainer=Trainer, epochs=1, batch=4, **settings)
    assert sum(p.numel() for p in yolo.model.parameters()) < before
    assert yolo.val(**settings).box.map >= 0
    assert len(yolo.predict(str(data.parent / "images" / "0.png"), imgsz=SIZE)) == 1
    assert Path(yolo.export(format="onnx", imgsz=SIZE)).exists()
