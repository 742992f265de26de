"""Workers: PPP, authentication, addresses, sessions and the worker process."""
