"""Weights on disk: our own bundles (store.py); published checkpoints become bundles through rename tables."""
