"""Layers: each a `Backend` around a `Backend`, usable alone or in a stack."""
