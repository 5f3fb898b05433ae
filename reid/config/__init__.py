"""The keys of a configuration, its loading and checks, and the objects that are built from it."""

from reid.config.loading import load_config, parse_config

__all__ = ["load_config", "parse_config"]
