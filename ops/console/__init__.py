"""The console process: metrics, status page and the control socket, from shared memory only."""
