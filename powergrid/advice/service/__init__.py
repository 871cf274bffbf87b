"""Advice as a service: an advisor over HTTP, with a token, typed errors and a page that needs no network."""
