"""Every key of a configuration, how one is read and checked, and what is built from it."""
