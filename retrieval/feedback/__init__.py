"""Clicks and rejections: how they are written down, and what a training can take from them."""

from retrieval.feedback.recording import record_file
from retrieval.feedback.weighing import MOST_PER_SOURCE, Lessons, weigh

__all__ = ["MOST_PER_SOURCE", "Lessons", "record_file", "weigh"]
