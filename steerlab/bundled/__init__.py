"""What ships with the package: the small multilingual model, its vectors, and a sample set written for this
project.
"""
