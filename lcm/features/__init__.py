"""Images to features: frozen encoders as ONNX files, and the cache of what they gave."""
