"""Keeper, netops and dispatcher: the processes in front of the workers."""
