"""What episodes are played on and how they are kept: environments, their days and ranges, the processes, records."""
