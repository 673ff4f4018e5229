"""The HTML page of a report: charts, tables and text in one file. Knows no data sources.

Decisions
---------
No scripts in the page
    matplotlib draws the geometry with placeholder colors, which become classes that the style sheet colors for dark,
    light and print. Text from the data is put into the SVG afterwards, so that no layout engine parses it. Values
    appear by ``:hover``. Rejected: a plotting library in the page (megabytes, and a policy that must allow scripts),
    and raster images (one color scheme).
"""
