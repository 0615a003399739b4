"""TensorFlow, imported without the two lines about oneDNN that it writes to stderr whatever the log level."""

import os
import warnings


def import_tensorflow() -> None:
    """Import TensorFlow with stderr closed to it; errors after the import are shown as ever."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    shown = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)
    tensorflow.get_logger().setLevel("ERROR")  # it warns of one graph a caption length, which is meant
    warnings.filterwarnings("ignore", "You are using a softmax over axis")  # a first word that reads itself alone
