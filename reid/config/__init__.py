"""The keys of a configuration, its loading and checks, and the objects that are built from it."""

from reid.config.loading import find_config, load_config, parse_config

__all__ = ["find_config", "load_config", "parse_config"]
