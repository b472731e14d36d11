"""The ledger of input shards: leases, counts and failures."""
