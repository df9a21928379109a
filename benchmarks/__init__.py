"""Side by side with peers: one command each, JSON out. Needs the extra `[peers]`; run from the repository root."""
