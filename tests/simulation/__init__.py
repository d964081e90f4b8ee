"""Tests of deploy/simulation."""
