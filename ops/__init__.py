"""Operations: configuration, bus messages, metric names, logging, command line, console, client."""
