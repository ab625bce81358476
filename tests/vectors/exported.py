"""The exported graphs, opened as a device opens them, once per test process: an export takes seconds."""

from __future__ import annotations

from functools import cache

import onnxruntime as ort

from edge_cmcl.device.sessions import open_session
from edge_cmcl.host.graphs import step_graph, universal_graph


@cache
def step_session() -> ort.InferenceSession:
    return open_session(step_graph(), "the training step", threads=1)


@cache
def universal_session() -> ort.InferenceSession:
    return open_session(universal_graph(), "the universal encoder", threads=1)
