"""The problem of a run: data, splits, network, and where its models are."""
