"""Who watches a life. Trackers are fed the events of `live` and never touch the robot. docs/tracking.md names every metric."""

from motorbabble.tracking.jsonl import JsonlTracker
from motorbabble.tracking.metrics import Entry, metrics_of, timing
from motorbabble.tracking.terminal import Terminal, sparkline
from motorbabble.tracking.trackers import Tracker, Tracking, TrackingConfig

__all__ = ["Entry", "JsonlTracker", "Terminal", "Tracker", "Tracking", "TrackingConfig", "metrics_of", "sparkline", "timing"]
