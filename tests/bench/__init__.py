"""Benches: what the data path costs, against yardsticks measured in the same run."""
