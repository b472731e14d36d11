"""The steps of a running job while strangers misuse the port of its chief, and while they do not.

The attacker is one process of the lowest priority: what it costs is what the job does about it, and
not the processor that the attacker itself would take from a machine of its own.
"""
