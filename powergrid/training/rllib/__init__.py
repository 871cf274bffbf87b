"""Where RLlib is touched: runner, learner, modules and configuration, all through its own classes."""
