"""The columns of a table that a job uses: logits, labels, sequences, and result arrays."""
