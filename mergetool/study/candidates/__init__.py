"""What a candidate is, one class for each kind."""
