"""Rendering of results for a terminal: tables and lines of text."""
