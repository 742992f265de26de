"""RFC 2637 control connections: no socket, no clock, standard library only."""
