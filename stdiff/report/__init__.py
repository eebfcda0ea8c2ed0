"""The report: one self-contained HTML page of a run, its figures and summaries."""
