"""``_report.html`` of a training: the findings as one page that needs nothing else."""
