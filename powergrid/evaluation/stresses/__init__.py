"""Policies under stress: days that are harder than those of training, played without training anew."""
