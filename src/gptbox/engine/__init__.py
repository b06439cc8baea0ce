"""Generating fast on small machines: ids in, ids out, without torch."""
