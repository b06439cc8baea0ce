"""Training, with torch: from a prepared dataset to published model folders."""
