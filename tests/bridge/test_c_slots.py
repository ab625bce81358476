"""A micro model is taken into two flash slots: power is cut at every write, and one valid model is always in use."""

from __future__ import annotations

import json
import os

import pytest
from c_build import program, run

EVERY_CALL, NOW_AND_THEN = 1, 97


@pytest.mark.parametrize("geometry", range(4))
def test_wherever_power_is_cut_a_valid_model_is_in_use_and_a_transfer_can_be_completed(geometry: int) -> None:
    """EDGE_CMCL_FIRMWARE=full cuts at every call that changes flash, else at every 97th of those that write data."""
    step = EVERY_CALL if os.environ.get("EDGE_CMCL_FIRMWARE") == "full" else NOW_AND_THEN
    counted = json.loads(run(program("slots_power"), str(geometry), "1", str(step)))
    print(geometry, counted)
    assert counted["cuts"] > 600
    assert counted["starts"] > counted["cuts"]
