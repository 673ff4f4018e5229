"""Jobs from sources to sinks: in one process, as parts of a folder, or as tasks of an engine. Doesn't know terminals.

Decisions
---------
A part is a function of the plan and its number
    Its file is written under a name of its own and renamed when it is complete, so making it twice, or at once in two
    places, gives one file. Its size and its sums are returned; one process publishes when all parts are finished.
    On a Ray cluster, a task gets 2.5 kB of plan and 0.3 kB of part.
In Spark and Ray, a task plans its job anew
    Engines pass other Arrow types than they announce (time zones, large text, blocks of nulls only), and carried
    columns must be returned as they came. The driver finds the number of classes. Rejected: casts to the driver's
    schema, and a number of classes for each task.
"""
