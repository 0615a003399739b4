"""How good captions are, as numbers and as figures."""
