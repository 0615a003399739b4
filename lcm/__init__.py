"""lcm learns to caption images from its users' own labelled images.

Importing it loads neither TensorFlow nor torch; `load_captioner` loads ONNX Runtime when called.
"""

__version__ = "0.2.0"
__all__ = ["load_captioner"]


def __getattr__(name: str):
    if name == "load_captioner":
        from lcm.captioning.captioner import load_captioner

        return load_captioner
    raise AttributeError(f"module 'lcm' has no attribute {name!r}")
