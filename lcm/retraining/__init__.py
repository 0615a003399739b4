"""Retraining on what users sent: what may train, what is held out, and whether the new model may be published."""
