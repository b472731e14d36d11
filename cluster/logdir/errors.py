"""Errors of a log directory, and their remedies."""

from __future__ import annotations

import errno

import tensorflow as tf

# Errors that any operation on a log directory may raise.
LOGDIR_ERRORS = (tf.errors.OpError, OSError)


def remedy_for(error: Exception) -> str:
    """Returns a remedy for an error of a storage, to follow its message; may be empty."""
    code = getattr(error, "errno", None)
    if isinstance(error, tf.errors.ResourceExhaustedError) or code in (errno.ENOSPC, errno.EDQUOT):
        return " (free space there, or keep fewer checkpoints)"
    denied = code in (errno.EACCES, errno.EPERM, errno.EROFS)
    if isinstance(error, tf.errors.PermissionDeniedError) or denied:
        return " (make the directory writable)"
    if isinstance(error, TimeoutError):
        return " (is the disk or the network too slow, or gone?)"
    return ""
