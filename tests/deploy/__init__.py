"""Tests of what surrounds a deployment."""
