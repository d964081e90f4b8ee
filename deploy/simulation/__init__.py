"""A federation on a virtual clock: the aggregator's and the sites' own code on a simulated network.

docs/simulator.md says what is real and what is simulated.
"""
