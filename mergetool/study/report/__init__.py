"""What a study leaves for its reader: pictures, report.html, and the scores of a model card."""
