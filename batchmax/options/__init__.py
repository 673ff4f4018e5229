"""The options of jobs and commands: their types, defaults and checks, without reading any data."""
