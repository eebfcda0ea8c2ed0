"""Training: one resumable loop, and the stages of the generator that it trains."""
