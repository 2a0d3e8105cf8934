"""Families of networks: one file a family, each turning its settings into a space and slots for blocks."""
