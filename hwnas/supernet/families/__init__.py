"""Families of networks: one file a family, each turning its settings into a space and a row of places for blocks."""
