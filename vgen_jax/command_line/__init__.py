"""What the command line answers without running anything: which configs and runs there are, what a config's keys mean.

``main`` alone imports it.
"""
