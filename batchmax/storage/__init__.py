"""Paths of files, folders and objects in stores, and what is at them. Knows nothing of rows."""
