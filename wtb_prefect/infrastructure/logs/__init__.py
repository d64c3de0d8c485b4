"""What user code prints and logs, kept with the execution that it belongs to."""
