"""What is measured of models, and the columns of the tables."""
