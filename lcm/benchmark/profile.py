"""Where the time of a training step goes, by kind of operation.

Knows TensorFlow's profiler and which operations belong together. Refuses to know models.
"""

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

KINDS = {  # kind -> how the names of its operations begin, without "_", or oneDNN's "_Mkl" and "_MklNative"
    "matrix products": ("MatMul", "FusedMatMul", "BatchMatMul", "FusedBatchMatMul"),
    "softmax and loss": ("Softmax", "LogSoftmax", "SparseSoftmax", "TensorScatterSub", "Log", "GatherNd"),
    "weights and their steps": ("Assign", "Resource", "ReadVariable", "Sqrt", "Square", "AddN", "BiasAddGrad"),
    "moved about": ("Concat", "Split", "Slice", "Strided", "Transpose", "Reshape", "Pack", "Unpack", "Gather", "Pad"),
    "chance": ("Stateless", "Random"),
}
OTHER = "element by element, and others"


def profile(work: Callable[[], object], repeats: int = 5) -> dict[str, float]:
    """Return kind -> its share of the time spent in operations, largest first, of `repeats` calls after a first one."""
    import tensorflow as tf

    work()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(repeats):
                work()
        spent = _operations(Path(folder))
    kinds: Counter[str] = Counter()
    for operation, picoseconds in spent.items():
        kinds[kind_of(operation)] += picoseconds
    total = sum(kinds.values())
    return {kind: picoseconds / total for kind, picoseconds in kinds.most_common()}


def kind_of(operation: str) -> str:
    """Return the kind of an operation, by its name in the graph, such as `MatMul` or `_MklMatMul`."""
    name = operation.removeprefix("_MklNative").removeprefix("_Mkl").removeprefix("_")
    return next((kind for kind, beginnings in KINDS.items() if name.startswith(beginnings)), OTHER)


def _operations(folder: Path) -> Counter[str]:
    """Return the time of each operation, in picoseconds, from the profile in `folder`."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    spent: Counter[str] = Counter()
    for path in folder.rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace()
        space.ParseFromString(path.read_bytes())
        for plane in space.planes:
            for line in plane.lines:
                for event in line.events:
                    # An operation is called PLACE:NAME; what has no ":", or C++'s "::", only encloses some.
                    place, colon, operation = plane.event_metadata[event.metadata_id].name.rpartition(":")
                    if colon and not place.endswith(":") and operation.isidentifier():
                        spent[operation] += event.duration_ps
    return spent
