"""Tests of real parts in network namespaces that each test makes and removes."""
