"""Tracking: what the results of a pipeline or a sweep become in MLflow."""
