"""Random augmentation of training images: flip, crop, erasing, color jitter, learned policies."""
