"""Stands in front of OpenCV, as where it is not installed."""

raise ImportError("hidden by a test")
