"""Faces for libraries that need one of their own; each module needs its library, and nothing else imports it.

``powergrid.adapters.sb3`` needs Stable-Baselines3, ``powergrid.adapters.torchrl`` TorchRL, and so on:
``pip install "powergrid-dss[learners]"``. What works with Gymnasium, PettingZoo or RLlib needs none of them.
"""
