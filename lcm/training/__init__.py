"""From features and captions to an exported bundle; needs TensorFlow."""

import lcm.models  # noqa: F401 - imports TensorFlow, quietly
