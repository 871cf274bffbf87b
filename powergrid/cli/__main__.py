"""Run the command line as ``python -m powergrid.cli``."""

from powergrid.cli import main

main()
