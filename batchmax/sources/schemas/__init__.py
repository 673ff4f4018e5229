"""Schemas of files that are read as one: merged columns, checks, and declared types. Doesn't read rows."""
