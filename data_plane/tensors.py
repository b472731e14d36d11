"""Names of TensorFlow's types for annotations.

TensorFlow and Keras are untyped; these names document the intended type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Tensor = Any
Operation = Any
Variable = Any
GradientsAndVariables = Sequence[tuple[Tensor, Variable]]
