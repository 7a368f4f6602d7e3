"""Frozen features of whole videos: made by the encoder (`extract`), and served to a task (`timelines`)."""
