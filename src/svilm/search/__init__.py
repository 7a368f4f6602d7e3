"""Searching one's own videos: a folder is indexed once and asked in words from then on."""
