"""Inference engines measured: what they can do, how fast they are under which load, and what a token of theirs costs. Guide: docs/probes.md.

config, records, runs   what is to be measured, what is kept of a request, and what a run is
engines                 how each is spoken to and started, and what it tells of itself
load                    what is asked, when, and how much of it
client                  requests sent, and everything that was seen of them
run_folder, loading     a run, written while it is measured, and read back
figures, views          what records come to, by our definitions and by other tools'
money                   what a token costs, and from where on that is cheaper than an API
report                  the HTML page
"""
