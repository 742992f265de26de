"""RADIUS: packets, attributes, exchange, accounting; no socket, clock or entropy but in service."""
