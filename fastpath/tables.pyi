"""Indexes of the data thread: nothing for Python."""
