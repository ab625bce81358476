"""Generations between a device and its host, over a registry, a shared folder or ssh (SYNC.md in this folder)."""
