"""The chief's control plane under thousands of simulated tasks.

One real chief trains over one real parameter server, with a second one as a spare. The workers and
further spares are simulated: each has a connection of its own, registers, opens the streams of a
worker, sends heartbeats with a report, and waits for each generation. They make no steps.
"""
