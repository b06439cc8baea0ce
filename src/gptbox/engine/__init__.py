"""The inference engine: token ids in, token ids out, fast on small machines and without torch."""
