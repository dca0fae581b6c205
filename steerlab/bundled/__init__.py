"""What ships with the package: two small multilingual models, vectors, and a sample set written for this project."""
