"""Measurements of models, and the columns of the tables."""
