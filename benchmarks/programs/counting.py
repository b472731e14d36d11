"""The number of tensors and bytes that cross between tasks in one step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def count_transfers(metadata: Any) -> dict[str, float]:
    """Counts the transfers in TensorFlow's record of one step.

    Args:
        metadata: A `RunMetadata` with partition graphs and a full trace.

    Returns:
        "receives": receiving ops between tasks in the partition graphs, each a call of its own.
        "received_bytes" and "received": bytes and tensors that were received, from the trace.
    """
    receives = sum(
        _task(node.attr["send_device"].s.decode()) != _task(node.attr["recv_device"].s.decode())
        for graph in metadata.partition_graphs
        for node in graph.node
        if node.op in ("_Recv", "_HostRecv")
    )
    received = [
        sum(
            output.tensor_description.allocation_description.requested_bytes
            for output in node.output
        )
        for device in metadata.step_stats.dev_stats
        for node in device.node_stats
        if node.node_name == "RecvTensor"
    ]
    return {
        "receives": float(receives),
        "received": float(len(received)),
        "received_bytes": float(sum(received)),
    }


def _task(device: str) -> tuple[str | None, int | None]:
    spec = tf.DeviceSpec.from_string(device)
    return spec.job, spec.task
