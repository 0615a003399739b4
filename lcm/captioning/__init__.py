"""Images to captions: decoding, the exported bundle, captioners; ONNX Runtime alone, but for BLIP and Marian."""
