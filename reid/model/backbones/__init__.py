"""Backbones: images -> maps of activations."""
