"""Writes results: Parquet files, Arrow streams and text files. Doesn't know kernels.

Decisions
---------
Row groups are cut by inputs and options alone
    They are the input's, or equal pieces where these hold more than 64 MiB. Rejected: by memory or threads, which would
    make the bytes depend on the machine.
Metadata is rebuilt, not copied
    The Arrow, pandas or Spark schema of the input does not describe the output; Spark would hide the new columns.
Streams end with the end-of-stream marker
    It is written only when everything was. Arrow's readers accept a stream that was cut between two batches.
"""
