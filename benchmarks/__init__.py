"""Measurements that compare this project with others on the machine at hand."""
