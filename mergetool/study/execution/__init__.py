"""Making and measuring candidates: in this process, in several, or on a Ray cluster."""
