"""The HTML page of a report: charts, tables and text as one file. Knows no data sources."""
