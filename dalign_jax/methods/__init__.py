"""Unlearning methods behind one interface."""
