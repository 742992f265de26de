"""Configuration: a TOML file becomes ops.settings, or a list of what is wrong with it."""
