"""import-config accel-ppp: its one file becomes our TOML."""
