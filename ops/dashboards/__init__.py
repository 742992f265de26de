"""Makes the Grafana dashboards of ops/data/dashboards: `python -m ops.dashboards`."""
