"""Runs a Ray cluster on this host until its standard input is closed.

Usage: ray_nodes.py ADDRESS_FILE NODES, of which the first is the head.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 4, "num_gpus": 1, "object_store_memory": 80 * 1024 * 1024}
address_file, nodes = Path(sys.argv[1]), int(sys.argv[2])
temporary = tempfile.mkdtemp(prefix="paramserve-nodes-")
# Ray writes the newest cluster's address below its default directory, which may not exist.
default = Path("/tmp/ray")
made_default = not default.exists()
default.mkdir(exist_ok=True)
cluster = Cluster(
    initialize_head=True,
    head_node_args={**NODE, "temp_dir": temporary, "include_dashboard": False},
)
for _ in range(nodes - 1):
    cluster.add_node(**NODE)
address_file.with_suffix(".tmp").write_text(cluster.address)
address_file.with_suffix(".tmp").rename(address_file)
try:
    sys.stdin.read()
finally:
    cluster.shutdown()
    shutil.rmtree(temporary, ignore_errors=True)
    if made_default:
        shutil.rmtree(default, ignore_errors=True)
