"""Images to captions: decoding, the exported bundle, captioners; ONNX Runtime alone, but for CLIP and BLIP."""
