"""The Kubernetes manifests: against the schemas, our command line, and each other."""

import ast
import re

import kubernetes_validate
import pytest
import typer
import yaml

from paramserve import __version__
from paramserve.cli.app import app
from paramserve.cluster.security import SecurityOptions
from paramserve.errors import ExitCode
from paramserve.option import PREFIX, definitions

# The oldest that we promise, one between, and the newest known.
VERSIONS = ("1.29", "1.31", kubernetes_validate.latest_version())
ROLES = {"census-chief": "chief", "census-ps": "ps", "census-worker": "worker"}


@pytest.fixture(scope="module")
def kustomization(deploy):
    return yaml.safe_load((deploy / "kubernetes/kustomization.yaml").read_text())


@pytest.fixture(scope="module")
def manifests(deploy, kustomization):
    """Every object that `kubectl apply -k` would send, by (kind, name)."""
    found = {}
    for file in kustomization["resources"]:
        for document in yaml.safe_load_all((deploy / "kubernetes" / file).read_text()):
            key = (document["kind"], document["metadata"]["name"])
            assert key not in found
            found[key] = document
    return found


@pytest.fixture(scope="module")
def jobs(manifests):
    """The three Jobs, by role."""
    return {role: manifests["Job", name] for name, role in ROLES.items()}


@pytest.fixture(scope="module")
def parsed(jobs):
    """The result of our command line on the arguments of each role's container."""
    return {role: parse(filled_arguments(container_of(job))) for role, job in jobs.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(version, manifests):
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_mistake_in_a_manifest_would_be_found(jobs):
    job = yaml.safe_load(yaml.safe_dump(jobs["ps"]))
    container_of(job)["livenessProb"] = container_of(job).pop("livenessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="livenessProb"):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


def test_no_file_is_forgotten(deploy, kustomization):
    files = {path.name for path in (deploy / "kubernetes").iterdir()}
    assert files == {*kustomization["resources"], "kustomization.yaml", "prometheus.yml"}


def test_every_role_has_its_command(parsed):
    assert {role: name for role, (name, _) in parsed.items()} == {r: r for r in ROLES.values()}


@pytest.mark.parametrize("arguments", [["ps", "--chef=a:1"], ["ps", "--index=x"], ["ps", "0"]])
def test_a_mistake_in_a_command_would_be_found(arguments):
    with pytest.raises(Exception, match=r"No such option|not a valid|valid integer|unexpected"):
        parse(arguments)


def test_the_chief_waits_for_as_many_tasks_as_there_are(jobs, parsed):
    _, options = parsed["chief"]
    for role, count in (("ps", options["num_ps"]), ("worker", options["num_workers"])):
        assert jobs[role]["spec"]["completions"] == count
        assert jobs[role]["spec"]["parallelism"] == count


def test_chief_and_workers_build_the_same_model_and_the_image_has_it(parsed, tracked, deploy):
    references = {parsed[role][1]["model"] for role in ("chief", "worker")}
    (reference,) = references
    path, function = reference.split(":")
    copies = re.findall(r"COPY (examples) (\S+)", (deploy / "docker/Dockerfile").read_text())
    ((source, target),) = copies
    file = path.replace(target, source, 1)
    assert file in tracked
    tree = ast.parse((deploy.parent / file).read_text())
    assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_tasks_ask_the_chief_where_its_service_leads(jobs, manifests, parsed):
    service = manifests["Service", "census-chief"]
    (port,) = service["spec"]["ports"]
    for role in ("ps", "worker"):
        assert parsed[role][1]["chief"] == f"{service['metadata']['name']}:{port['port']}"
    # A headless Service does not translate ports.
    assert ports_of(jobs["chief"])[port["targetPort"]] == port["port"]


def test_the_service_selects_the_chief_and_nothing_else(jobs, manifests):
    selector = manifests["Service", "census-chief"]["spec"]["selector"]
    selected = [
        role
        for role, job in jobs.items()
        if selector.items() <= job["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert selected == ["chief"]


def test_processes_listen_where_the_manifests_say(jobs, parsed):
    for role, job in jobs.items():
        options, ports = parsed[role][1], ports_of(job)
        assert options["metrics_port"] == ports["metrics"]
        assert options["port"] == ports["control" if role == "chief" else "tensorflow"]
        assert options.get("tensorflow_port", options["port"]) == ports["tensorflow"]
        annotations = job["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(ports["metrics"])


def test_probes_ask_a_declared_port(jobs):
    for role, job in jobs.items():
        container = container_of(job)
        expected = {"port": "control" if role == "chief" else "metrics"}
        for probe in (container["startupProbe"], container["livenessProbe"]):
            # Of the other kinds, none has a certificate to show.
            assert probe["tcpSocket"] == expected
            assert expected["port"] in ports_of(job)


def test_the_log_directory_is_the_mounted_volume(jobs, manifests, parsed):
    spec = jobs["chief"]["spec"]["template"]["spec"]
    mounts = {m["mountPath"]: m["name"] for m in container_of(jobs["chief"])["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    volume = volumes[mounts[parsed["chief"][1]["logdir"]]]
    assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in manifests
    for role in ("ps", "worker"):
        mounted = jobs[role]["spec"]["template"]["spec"]["volumes"]
        assert not any("persistentVolumeClaim" in volume for volume in mounted)


def test_paramserve_is_process_one(jobs):
    """No shell stands between Kubernetes's SIGTERM and the image's entry point."""
    for job in jobs.values():
        assert "command" not in container_of(job)


def test_tasks_are_gone_before_they_would_be_killed(jobs, parsed):
    for role in ("ps", "worker"):
        pod = jobs[role]["spec"]["template"]["spec"]
        assert parsed[role][1]["grace_secs"] < pod["terminationGracePeriodSeconds"]


def test_parameter_servers_outlast_the_chief_when_all_is_deleted(jobs, parsed):
    """The variables stay for as long as the chief may take for the last checkpoint."""
    chief = jobs["chief"]["spec"]["template"]["spec"]
    assert chief["terminationGracePeriodSeconds"] <= parsed["ps"][1]["grace_secs"]


def test_tasks_that_were_preempted_are_no_failures(jobs):
    for role in ("ps", "worker"):
        rules = jobs[role]["spec"]["podFailurePolicy"]["rules"]
        ignored = [rule for rule in rules if rule["action"] == "Ignore"]
        (on_exit,) = [rule["onExitCodes"] for rule in ignored if "onExitCodes" in rule]
        assert (on_exit["containerName"], on_exit["values"]) == (role, [ExitCode.PREEMPTED])


def test_what_has_finished_is_not_started_again(jobs):
    for role, job in jobs.items():
        assert job["spec"]["completionMode"] == "Indexed"
        pod = job["spec"]["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        # A policy about a container that does not exist would be refused.
        rules = job["spec"]["podFailurePolicy"]["rules"]
        (on_exit,) = [rule for rule in rules if rule["action"] == "FailJob"]
        assert on_exit["onExitCodes"]["containerName"] == role


def test_images_are_those_of_this_version(jobs, kustomization):
    (image,) = kustomization["images"]
    assert image["newTag"] == __version__
    for job in jobs.values():
        assert container_of(job)["image"] == f"{image['name']}:{__version__}"


def test_labels_agree(jobs):
    for role, job in jobs.items():
        labels = job["metadata"]["labels"]
        assert labels == job["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/component"] == role


def test_prometheus_discovers_the_pods_of_these_manifests(deploy, jobs):
    settings = yaml.safe_load((deploy / "kubernetes/prometheus.yml").read_text())
    (discovery,) = settings["scrape_configs"][0]["kubernetes_sd_configs"]
    (selector,) = discovery["selectors"]
    assert discovery["role"] == selector["role"] == "pod"
    key, value = selector["label"].split("=")
    for job in jobs.values():
        template = job["spec"]["template"]["metadata"]
        assert template["labels"][key] == value
        assert template["annotations"]["prometheus.io/scrape"] == "true"


def test_processes_take_their_token_and_certificates_from_the_secret(jobs, deploy):
    documented = (deploy.parent / "docs/deploy.md").read_text()
    for role, job in jobs.items():
        settings = settings_of(container_of(job))
        assert set(settings) == {
            each.variable
            for each in definitions(SecurityOptions).values()
            if each.name != "insecure"
        }
        (volume,) = [v for v in job["spec"]["template"]["spec"]["volumes"] if "secret" in v]
        (mount,) = [m for m in container_of(job)["volumeMounts"] if m["name"] == volume["name"]]
        files = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
        assert files == {path for path in settings.values() if path.startswith("/")}
        # Only the chief has the secret of the job, from which all tokens follow.
        keys = {item["key"] for item in volume["secret"]["items"]}
        assert ("token" in keys, "member-token" in keys) == (role == "chief", role != "chief")
        assert all(f"--from-file={key}=" in documented for key in keys)
        assert not volume["secret"]["defaultMode"] & 0o007


def test_the_policy_admits_the_jobs_own_pods_to_every_port(jobs, manifests):
    spec = manifests["NetworkPolicy", "census"]["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    selector = spec["podSelector"]["matchLabels"].items()
    own, prometheus = spec["ingress"]
    (peer,) = own["from"]
    for job in jobs.values():
        labels = job["spec"]["template"]["metadata"]["labels"].items()
        assert selector <= labels
        assert peer["podSelector"]["matchLabels"].items() <= labels
        assert set(ports_of(job).values()) <= {each["port"] for each in own["ports"]}
        assert [each["port"] for each in prometheus["ports"]] == [ports_of(job)["metrics"]]


def test_documented_commands_exist(deploy):
    text = (deploy.parent / "docs/deploy.md").read_text().replace("\\\n", " ")
    # At a prompt, in a pod (after "--"), or as the command of a container of our image.
    commands = re.findall(r"(?:^ *| -- )paramserve (\w+.*)$", text, re.M)
    commands += re.findall(r"^ *docker run .* paramserve:\S+ +(\w+.*)$", text, re.M)
    assert {command.split()[0] for command in commands} >= {"run", "status", "stop"}
    for command in commands:
        parse(command.split())


def parse(arguments):
    """Returns name and options of a `paramserve` command line; raises on a mistake in it."""
    name, *rest = arguments
    command = typer.main.get_command(app).commands[name]
    return name, command.make_context(name, rest).params


def container_of(job):
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


def ports_of(job):
    return {port["name"]: port["containerPort"] for port in container_of(job)["ports"]}


def settings_of(container):
    """Returns the token and certificates in the container's environment."""
    entries = {entry["name"]: entry.get("value") for entry in container["env"]}
    return {name: value for name, value in entries.items() if name.startswith(PREFIX)}


def filled_arguments(container):
    """Returns the arguments with $(NAME) replaced, as Kubernetes does, by "0"."""
    settings = settings_of(container)
    values = {
        entry["name"]: entry.get("value", "0")
        for entry in container["env"]
        if entry["name"] not in settings
    }
    filled = [re.sub(r"\$\((\w+)\)", lambda m: values[m[1]], a) for a in container["args"]]
    used = re.findall(r"\$\((\w+)\)", " ".join(container["args"]))
    assert set(used) == set(values), "every variable is declared and used"
    return filled
