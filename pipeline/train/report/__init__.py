"""``_report.html`` of a training: the findings as one self-contained page."""
