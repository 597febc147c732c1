"""Metrics of the host, in files that node_exporter and Prometheus read."""
