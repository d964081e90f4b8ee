"""Tests of fedqueue, in the order of its packages."""
