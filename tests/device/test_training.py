"""Training refuses a step graph that it does not know how to feed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_cmcl.device.sessions import open_session
from edge_cmcl.device.training import Problem, train
from edge_cmcl.errors import ModelError


def test_a_step_of_an_older_version_is_refused_before_the_first_step() -> None:
    """The one with a second moment for each number: its learning rate means something else."""
    names = ("second", "second_out")
    second, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["m", "d", "k"]) for name in names)
    graph = helper.make_graph([helper.make_node("Identity", [names[0]], [names[1]])], "step", [second], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    session = open_session(model.SerializeToString(), "the training step")
    features = np.zeros((4, 3), np.float32)
    problem = Problem([features, features], [features, features], np.arange(4)[None])
    with pytest.raises(ModelError, match="older one") as caught:
        train(session, problem, np.arange(4), lambda epoch, changes: pytest.fail("trained"))
    assert "export the base again" in str(caught.value.hint)
