"""Modules → bundle. Runs on any machine with PyTorch; nothing after it needs PyTorch."""
