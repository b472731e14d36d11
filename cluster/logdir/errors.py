"""Errors of a log directory, and their remedies."""

from __future__ import annotations

import errno

import tensorflow as tf

# What any operation on a log directory may raise.
LOGDIR_ERRORS = (tf.errors.OpError, OSError)


def remedy_for(error: Exception) -> str:
    """What helps against an error of a storage, to be put after its message; may be empty."""
    code = getattr(error, "errno", None)
    if isinstance(error, tf.errors.ResourceExhaustedError) or code in (errno.ENOSPC, errno.EDQUOT):
        return " (free space there, or keep fewer checkpoints)"
    denied = code in (errno.EACCES, errno.EPERM, errno.EROFS)
    if isinstance(error, tf.errors.PermissionDeniedError) or denied:
        return " (make the directory writable)"
    if isinstance(error, TimeoutError):
        return " (is the disk or the network too slow, or gone?)"
    return ""
