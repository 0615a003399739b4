"""TensorFlow, imported without its talk.

Knows that TensorFlow's C++ part writes two lines about oneDNN to stderr at every import, whatever the log level.
Refuses to know what TensorFlow is used for.
"""

import os


def import_tensorflow() -> None:
    """Import TensorFlow with stderr closed to it; warnings and errors after the import are shown as ever."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    shown = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)
