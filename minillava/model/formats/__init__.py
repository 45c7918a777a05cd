"""Checkpoints in and out: folders, published names, the parts of a LLaVA."""
