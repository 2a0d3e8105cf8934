"""Conformance suites: what an object of each kind of plug-in must do, for authors to inherit in their own tests."""
