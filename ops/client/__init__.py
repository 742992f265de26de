"""The client of our own: for `demo`, for benchmarks, and as a peer in tests."""
