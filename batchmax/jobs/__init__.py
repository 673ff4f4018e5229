"""Jobs from sources to sinks: in one process, as parts of a folder, as tasks of an engine. Knows no terminals."""
