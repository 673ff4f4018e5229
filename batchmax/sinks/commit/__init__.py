"""Publishes output files, folders and objects, and resumes killed runs.

Decisions
---------
A hidden staging directory next to the output, and a rename
    Rejected: writing in place and deleting on failure (a kill leaves half a file), and a directory elsewhere (a rename
    across file systems is a copy). A folder that replaces another is exchanged in one call (``renameat2``); where the
    system has none, the old folder is put aside first, and restored by the next run after a kill in between.
The lock is a file in the staging directory
    After locking it, a process checks that it still has that name, so deleting it is safe. Rejected: a lock file that
    stays next to the output.
A journal next to the unfinished file
    A Parquet file has its metadata at the end. Rejected: a footer after every row group, and parts as the only unit.
Parts of a folder are resumed as a whole
    A part takes seconds, and any process can make it again. Rejected: a journal of row groups for parts.
In object stores, parts have the id of their run in their names
    Folders can't be replaced in one step there, so the manifest that lists the parts is replaced last.
The manifest is a Parquet file without rows, ``_batchmax.parquet``
    Its metadata has the names and sizes of the parts, and the summary. It is in the folder of the first part, because
    DuckDB and Polars expect every file of a table partitioned by ``key=value`` in such a folder. Rejected: a JSON file
    next to the folder (readers of the parent folder read it as data), a JSON file in it (Polars refuses it), the
    metadata of a part (the summary is known after the first part is written).
Files for an object store are written locally first
    An upload stream publishes what it has when it is closed, also after an error. So it is opened only when everything
    is on the disk and checked, and it is not closed after a failure.
"""
