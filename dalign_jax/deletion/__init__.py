"""Deletion requests: a model without some of its training samples, and a record of how."""
