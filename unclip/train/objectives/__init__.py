"""One training task per network: what a batch is, what the loss is, what to show."""
