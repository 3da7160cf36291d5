"""Pixels to vectors to answers: a visual search engine trained on its own catalogue."""
