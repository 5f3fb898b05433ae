"""Readers, one file per dataset: folders on disk -> a checked `Split`."""
