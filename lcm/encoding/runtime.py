"""ONNX Runtime: the one way that lcm opens a graph.

Knows the session's options, and that ONNX Runtime reports its use to its makers unless it is told not to. Refuses to
know what a graph computes.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime


def open_session(path: Path, threads: int = 0, alone: bool = False) -> "onnxruntime.InferenceSession":
    """Load a graph for the processor; `threads` is the number of cores one call uses (0: all).

    `alone`: no other request wants the cores while a call runs.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when ONNX Runtime is imported
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait for work by spinning take the cores from other requests: without it, four at once are answered
    # half as fast again on two cores. One alone is encoded in 12 ms instead of 17 where they spin until the call ends.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if alone else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
