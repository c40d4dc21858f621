"""Simulators, the explorers that drive them and the collection of episodes."""
