"""What is said before the first mask."""

import pytest

import edgewise as ew
import jobs
from edgewise.evaluation import recover


def test_a_cheaper_recovery_is_offered_once_before_masks_take_long(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover, "SLOW", 0.0)
    study = ew.Study(*jobs.make(recovery="linear"))
    assert "Cheaper" not in caplog.text
    study.preview(study.graph.mask([0]))
    study.evaluate([study.graph.mask([0]), study.graph.mask([1])])
    assert [r.levelname for r in caplog.records if "Cheaper" in r.message] == ["WARNING"]
    assert 'recovery = "batchnorm"' in caplog.text
