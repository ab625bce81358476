"""Opening ONNX graphs with onnxruntime. The device does not parse ONNX: a graph is trusted by its digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnxruntime as ort

from edge_cmcl.errors import ModelError

CPU_PROVIDER: Final = "CPUExecutionProvider"
CPU = (CPU_PROVIDER,)

Provider = str | tuple[str, dict[str, str]]
"""An execution provider's name, alone or with its options."""


def open_session(
    graph: bytes, name: str, *, threads: int = 0, providers: Sequence[Provider] = CPU
) -> ort.InferenceSession:
    """Open `graph`, the bytes of one ONNX file.

    Args:
        graph: the file's content.
        name: what to call it in errors.
        threads: CPU threads of one operator; 0 lets onnxruntime take one per core.
        providers: execution providers, the preferred one first.

    Raises:
        ModelError: onnxruntime cannot load it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Spinning threads steal the cores from the device's real work; without it an update is faster, too (measured).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena keeps the largest batch's memory for good; an edge device has other work for it.
    options.enable_cpu_mem_arena = False
    try:
        return ort.InferenceSession(graph, options, providers=list(providers))
    except Exception as error:  # onnxruntime's own exceptions share no public base class
        raise ModelError(
            f"cannot load the graph of {name}",
            expected=f"an ONNX file that onnxruntime {ort.__version__} reads",
            got=str(error).splitlines()[0],
        ) from error


def input_shape(session: ort.InferenceSession, name: str) -> list[int | str | None]:
    """Return the declared shape of input `name`: numbers, or names of free dimensions.

    Raises:
        ModelError: the graph has no such input.
    """
    for value in session.get_inputs():
        if value.name == name:
            return list(value.shape)
    got = ", ".join(value.name for value in session.get_inputs())
    raise ModelError("the graph has other inputs than expected", expected=name, got=got)
