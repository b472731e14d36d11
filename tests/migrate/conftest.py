"""Old scripts, and their migrated form."""

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).with_name("scripts")


@pytest.fixture
def old_script():
    """The text of a script as it was written for TensorFlow 1."""
    return lambda name: (SCRIPTS / f"{name}.py").read_text()


@pytest.fixture
def new_script():
    """The text that it should become."""
    return lambda name: (SCRIPTS / "migrated" / f"{name}.py").read_text()
