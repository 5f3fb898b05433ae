"""Batch loading: loaders, samplers, prefetching."""
