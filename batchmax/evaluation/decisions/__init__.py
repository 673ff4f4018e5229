"""Decision rules: chosen on some rows, measured on others, and written to a file. Doesn't know how they are applied."""
