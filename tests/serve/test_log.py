"""What the server tells its operator."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.usefixtures("chat_server")
def test_detection_and_warm_up_are_logged_once(chat_log: Path) -> None:
    lines = chat_log.read_text().splitlines()
    (detected,) = [line for line in lines if "Gaudi detected: " in line]
    assert " x GAUDI" in detected
    assert "mode torch.compile" in detected
    (warm_up,) = [line for line in lines if "planned shapes" in line]
    assert "compilations" in warm_up
