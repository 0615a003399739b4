"""Half precision: the weights of an ONNX file, kept in 16 bits.

Knows how to halve a file. Refuses to know what is computed: ONNX Runtime widens the weights when it loads the file and
computes in 32 bits as before. A weight of 16 bits has a relative error of at most 0.05 %.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEAST = 1024  # numbers of an array that is worth it; small ones are scales, biases and constants


def halve_weights(path: Path) -> None:
    """Store the large float32 arrays of the ONNX file `path` as float16, in place.

    An array with a number beyond what 16 bits hold (65,504) stays as it is.
    """
    model = onnx.load(path)
    widen = []
    for array in model.graph.initializer:
        values = numpy_helper.to_array(array)
        if values.dtype != np.float32 or values.size < LEAST or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name, half = array.name, f"{array.name}_half"
        array.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        widen.append(helper.make_node("Cast", [half], [name], name=f"{name}_widen", to=TensorProto.FLOAT))
    for node in reversed(widen):
        model.graph.node.insert(0, node)
    onnx.save(model, path)
