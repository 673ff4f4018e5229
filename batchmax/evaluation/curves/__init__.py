"""Curves of classes against the others: AUROC, average precision, and their points. Doesn't know how rows are read."""
