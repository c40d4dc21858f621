"""Weights of the original models to and from this library's networks.

torch is imported only where a file needs it, never with the package.
"""
