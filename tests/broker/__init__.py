"""Tests of the road between both sides."""
