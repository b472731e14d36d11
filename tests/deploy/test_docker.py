"""The Dockerfile against the repository: there is no Docker engine where the tests run."""

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from paramserve import __version__


@pytest.fixture(scope="module")
def instructions(deploy):
    """The Dockerfile's instructions in their order, as (name, argument)."""
    text = (deploy / "docker/Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in joined]


@pytest.fixture(scope="module")
def context(deploy, tracked):
    """The files that a build sees: those of the repository that .dockerignore lets through."""
    patterns = (deploy.parent / ".dockerignore").read_text().splitlines()
    patterns = [line for line in patterns if line and not line.startswith("#")]
    return [path for path in tracked if not any(is_ignored(path, p) for p in patterns)]


@pytest.fixture(scope="module")
def project(deploy):
    return tomllib.loads((deploy.parent / "pyproject.toml").read_text())["project"]


def test_only_known_instructions_are_used(instructions):
    """An instruction that these tests do not check would fail here."""
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions} == known


def test_what_is_copied_exists(instructions, context):
    stages = re.findall(r"FROM \S+ AS (\w+)", "\n".join(" ".join(i) for i in instructions))
    for source in copied(instructions):
        if source.startswith("--from="):
            assert source.removeprefix("--from=") in stages
        elif source != ".":
            assert any(path == source or path.startswith(f"{source}/") for path in context), source


def test_the_build_sees_what_it_needs_and_not_the_rest(context, deploy):
    settings = tomllib.loads((deploy.parent / "pyproject.toml").read_text())
    packages = [name.split(".")[1:] for name in settings["tool"]["setuptools"]["packages"]]
    for needed in ("pyproject.toml", settings["project"]["readme"], "LICENSE", "py.typed"):
        assert needed in context
    for package in packages:
        assert "/".join([*package, "__init__.py"]) in context
    assert not any(path.startswith("tests/") for path in context)


def test_the_python_is_the_one_the_project_supports(instructions, project):
    images = {argument.split()[0] for name, argument in instructions if name == "FROM"}
    (image,) = images
    minimum = project["requires-python"].partition(",")[0].removeprefix(">=")
    assert image == f"python:{minimum}-slim"


def test_the_entry_point_is_our_command(instructions, project):
    assert dict(instructions)["ENTRYPOINT"] == '["paramserve"]'
    assert "paramserve" in project["scripts"]


def test_the_image_is_not_root(instructions, deploy):
    user = dict(instructions)["USER"].split(":")[0]
    assert user.isdigit()
    assert int(user) > 0
    names = [name for name, _ in instructions]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
    for file in ("chief.yaml", "ps.yaml", "workers.yaml"):
        job = next(yaml.safe_load_all((deploy / "kubernetes" / file).read_text()))
        assert job["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == int(user)


def test_the_documented_tag_is_the_version(deploy):
    text = (deploy / "docker/Dockerfile").read_text()
    text += (deploy.parent / "docs/deploy.md").read_text()
    assert set(re.findall(r"paramserve:([\w.-]*\d)", text)) == {__version__}


def copied(instructions):
    """The sources of every COPY."""
    return [word for n, argument in instructions if n == "COPY" for word in argument.split()[:1]]


def is_ignored(path, pattern):
    """Returns whether a pattern of .dockerignore, of the plain kind used here, matches a file."""
    parts = Path(path).parts
    prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    if pattern.startswith("**/"):
        return any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
    return any(fnmatch.fnmatch(prefix, pattern) for prefix in prefixes)
