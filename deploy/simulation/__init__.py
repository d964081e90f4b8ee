"""A federation on a virtual clock: the aggregator's and the sites' own code, with a simulated network and simulated time.

docs/simulator.md says what is real and what is simulated.
"""
