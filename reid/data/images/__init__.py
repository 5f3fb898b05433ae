"""Image files -> pixels: decoding, resizing, caching, normalization."""
