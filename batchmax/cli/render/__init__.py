"""How results are shown in a terminal: tables and lines of text."""
