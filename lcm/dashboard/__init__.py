"""The dashboard: a page to describe photos, correct captions and compare models; without TensorFlow or torch."""
