from __future__ import annotations

from device_command import Device
from machine_bundle import Machine

LEARN = ("update", "--modality", "acoustic", "--with", "vibration")


def test_an_update_beyond_the_limit_is_refused_with_code_5_unless_forced(device: Device, machine: Machine) -> None:
    device(*LEARN, "--data", machine.new)
    error = device.refused(*LEARN, "--data", machine.test, "--max-drift", "0.000001", code=5)
    assert error["type"] == "RefusedError"
    assert "--max-drift" in error["expected"]
    assert "--force" in error["to_do"]
    forced = device(*LEARN, "--data", machine.test, "--max-drift", "0.000001", "--force")
    assert {failure["check"] for failure in forced["failed"]} == {"drift"}
    assert forced["counter"] == 3


def test_an_update_shares_the_device_works_in_stages_and_stays_on_trial_until_confirmed(
    device: Device, machine: Machine
) -> None:
    polite = ("--stages", "2", "--nice", "10", "--max-memory", "1000", "--threads", "1")
    assert device(*LEARN, "--data", machine.new, *polite)["stages"] == [120, 240]
    trial = device("status")["trial"]
    assert (trial["back_to"], trial["starts"], trial["allowed"]) == (1, 0, 3)
    assert device("confirm")["counter"] == 2
    assert device("status")["trial"] is None
    error = device.refused(*LEARN, "--data", machine.test, "--max-memory", "2", code=7)
    assert "--max-memory" in error["expected"]


def test_old_generations_are_collected_and_the_device_goes_on(device: Device, machine: Machine) -> None:
    device(*LEARN, "--data", machine.new)
    device(*LEARN, "--data", machine.test)
    device("confirm")
    removed = device("gc", "--keep", "1")
    assert len(removed["generations"]) == 1
    assert removed["bytes"] > 0
    assert [each["counter"] for each in device("log")["generations"]] == [3, 1]  # the base stays
    device("embed", machine.test, "--out", "out.safetensors")
    assert device.refused("rollback", code=3)["type"] == "ModelError"
    assert device("rollback", "1")["counter"] == 1
