"""Features to captions, with ONNX Runtime alone: decoding, the exported bundle, captioners."""
