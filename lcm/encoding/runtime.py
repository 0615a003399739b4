"""ONNX Runtime: the one way that lcm opens a graph.

Knows the session's options, and that ONNX Runtime reports its use to its makers unless it is told not to. Refuses to
know what a graph computes.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

MOST_THREADS = 8  # of one call: an image has no work for more

if TYPE_CHECKING:
    import onnxruntime


def open_session(path: Path, threads: int = 0, alone: bool = False) -> "onnxruntime.InferenceSession":
    """Load a graph for the processor; `threads` is the number of cores one call uses (0: all, to MOST_THREADS).

    `alone`: no other request wants the cores while a call runs.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when ONNX Runtime is imported
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Never 0: ONNX Runtime then ties each of its threads to a core, where it waits for whoever is there already. Of
    # photos asked for one by one, every tenth took 34 ms to encode instead of 10.
    options.intra_op_num_threads = threads or min(os.cpu_count() or 1, MOST_THREADS)
    # Threads that wait for work by spinning take the cores from other requests: without it, four at once are answered
    # half as fast again on two cores. One alone is encoded in 10 ms instead of 13 where they spin on to the next part.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if alone else "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
