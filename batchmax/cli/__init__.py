"""The command line: parses options, runs a command and prints its result. Computes nothing."""
