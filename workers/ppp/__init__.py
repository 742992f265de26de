"""PPP: codecs and automata. No socket, no clock, no entropy in this package."""
