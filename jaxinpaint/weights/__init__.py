"""Weights: read published files safely, convert them, keep them as safetensors + JSON."""
