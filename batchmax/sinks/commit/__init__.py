"""How output files, folders and objects replace older ones: staging, journal, publication, clean-up."""
