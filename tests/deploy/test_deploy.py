"""deploy/ and docs/deploy.md: files parse, commands are the command line's own, the guide leads to a prediction."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.network.hosts import Host
from mpc.errors import UsageError
from nn.derm import samples
from parties import Cluster, KeyPair
from parties.commands.command_line import COMMANDS, main, parser_for
from parties.local.ports import reserved_ports
from parties.servers.process import READY

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
GUIDE = ROOT / "docs" / "deploy.md"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MEMBERS = ("dealer", "party0", "party1", "party2")


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """What the real command line makes of them; a test fails where it would end with a usage error."""
    try:
        return parser_for(arguments).parse_args(arguments)
    except UsageError:
        pytest.fail(f"`tessera {shlex.join(arguments)}` is not a command")


# -- systemd -----------------------------------------------------------------------------------------------------------


def settings(unit: Path) -> dict[str, list[str]]:
    """Values by setting, in all sections."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def exec_start(unit: Path, *, instance: str = "0", credentials: str = "/run/c", state: str = "/var/lib") -> list[str]:
    """The command, with specifiers as systemd expands them."""
    (line,) = settings(unit)["ExecStart"]
    for specifier, value in (("%i", instance), ("%d", credentials), ("%S", state)):
        line = line.replace(specifier, value)
    assert "%" not in line
    return shlex.split(line)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_start_what_there_is(unit: Path) -> None:
    program, *arguments = exec_start(unit)
    assert program == "/opt/tessera/bin/tessera"
    options = parsed(arguments)
    given = settings(unit)
    assert given["Type"] == ["notify"]
    # systemd kills nobody who is still within what it was promised.
    assert float(given["TimeoutStopSec"][0]) > options.grace + 2
    name = given["StateDirectory"][0].replace("%i", "0")
    assert options.data == Path("/var/lib") / name
    assert given["StateDirectoryMode"] == ["0700"]
    credential, _, source = given["LoadCredential"][0].partition(":")
    assert options.key == Path("/run/c") / credential
    assert Path(source).parent == options.cluster.parent
    assert "MemoryDenyWriteExecute" not in given


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_what_systemd_understands(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze")
    there = tmp_path / unit.name
    there.write_text(unit.read_text().replace("/opt/tessera/bin/tessera", "/bin/true"))
    done = subprocess.run([analyze, "verify", "--man=no", there], capture_output=True, text=True, timeout=60)
    if "Failed to initialize manager" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
    command = [analyze, "security", "--offline=true", "--threshold=15", "--no-pager", there]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    # 1.5 of 10: what a network service that compiles can do without, it does without.
    assert done.returncode == 0, done.stdout


def test_a_server_ends_before_its_host_does() -> None:
    """Wherever it is started from: of memory that Tessera's own bounds should keep it from."""
    assert len(UNITS) == 2
    assert all("MemoryMax=90%" in unit.read_text().splitlines() for unit in UNITS)
    services = compose()["services"]
    assert {services[name]["mem_limit"] for name in MEMBERS} == {"4g"}
    (pods,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "server" / "statefulset.yaml").read_text())
    server = next(one for one in pods["spec"]["template"]["spec"]["containers"])
    assert server["resources"]["limits"]["memory"] == "4Gi"


# -- containers --------------------------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())


def test_compose_runs_what_there_is_and_gives_each_its_own_key_only() -> None:
    file = compose()
    assert set(file["services"]) == {*MEMBERS, "upload", "predict"}
    for name, service in file["services"].items():
        options = parsed(service["command"])
        key = "clinic.key" if service.get("profiles") == ["client"] else f"{name}.key"
        assert service["secrets"] == [key]
        assert options.key == Path("/run/secrets") / key
        assert Path(file["secrets"][key]["file"]).name == key
        assert str(options.cluster) == service["configs"][0]["target"]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["image"] == compose()["services"]["dealer"]["image"]
        assert set(service["networks"]) <= set(file["networks"])
        if name in MEMBERS:
            (volume,) = service["volumes"]
            source, target = volume.split(":")
            assert source == name
            assert options.data.is_relative_to(target)
            assert float(service["stop_grace_period"].removesuffix("s")) > options.grace + 2
            assert service["ulimits"]["core"] == 0
    assert all(network["internal"] for network in file["networks"].values())
    assert file["services"]["predict"]["depends_on"]["upload"]["condition"] == "service_completed_successfully"
    sample = Path(file["services"]["predict"]["command"][1]).name
    assert sample in {s.path.name for s in samples()}


def test_the_script_makes_a_cluster_of_the_services(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = (DEPLOY / "docker" / "up.sh").read_text().replace("\\\n", " ")
    image = compose()["services"]["dealer"]["image"]
    (line,) = [line for line in script.splitlines() if f" {image} " in line]
    words = shlex.split(line.partition(f" {image} ")[2])
    words = [str(tmp_path / "site") if word == "/site" else word for word in words]
    assert main(words) == 0
    cluster = Cluster.load(tmp_path / "site" / "cluster.toml")
    services = compose()["services"]
    for server in cluster.servers:
        host, _, port = str(server.address).rpartition(":")
        assert host == server.name
        assert host in services
        assert server.listen == f"0.0.0.0:{port}"
        assert services[host].get("environment", {}).get("TESSERA_PORT", "7001") == port
    assert {f"{member.name}.key" for member in cluster.members} == set(compose()["secrets"])
    assert "warning" not in capsys.readouterr().err


def test_the_dockerfile_copies_files_that_are_there() -> None:
    folder = DEPLOY / "docker"
    dockerfile = (folder / "Dockerfile").read_text()
    (base,) = set(re.findall(r"^FROM (\S+)", dockerfile, re.M))
    assert re.fullmatch(r"python:3\.13\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base)
    assert re.search(r"^USER 10001:10001$", dockerfile, re.M)
    assert "torch" not in re.sub(r"#.*", "", dockerfile).lower()
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert compose()["services"]["dealer"]["image"] == f"tessera:{version}"
    let_in = [line[1:] for line in (folder / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert [name for name in let_in if not (ROOT / name).exists()] == []
    copied = re.search(r"^COPY --chmod=0755 (.*) /usr/local/bin/$", dockerfile, re.M)
    assert copied is not None
    assert set(copied[1].split()) <= set(let_in)


def test_the_entrypoint_gives_tessera_a_copy_of_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "kernels" / "sub").mkdir(parents=True)
    (tmp_path / "kernels" / "sub" / "one.nbi").write_text("compiled")
    (tmp_path / "tessera").write_text(
        '#!/bin/sh\necho "$NUMBA_CACHE_DIR"; cat "$NUMBA_CACHE_DIR/sub/one.nbi"; echo " $*"\n'
    )
    (tmp_path / "tessera").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TESSERA_KERNELS": str(tmp_path / "kernels"),
        "TMPDIR": str(tmp_path),
    }
    command = [DEPLOY / "docker" / "entrypoint.sh", "party", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    where, said = done.stdout.splitlines()
    assert said == "compiled party 0"
    assert Path(where).parent == tmp_path
    assert Path(where).stat().st_mode & 0o777 == 0o700


def test_the_health_check_sees_whether_somebody_listens() -> None:
    def healthy(port: int) -> int:
        command = [sys.executable, DEPLOY / "docker" / "healthy.py"]
        environment = {**os.environ, "TESSERA_PORT": str(port)}
        return subprocess.run(command, env=environment, capture_output=True).returncode

    with reserved_ports(1) as (port,):
        with socket.create_server(("127.0.0.1", port)):
            assert healthy(port) == 0
        assert healthy(port) == 1


# -- Kubernetes --------------------------------------------------------------------------------------------------------


def manifests(folder: str) -> dict[tuple[str, str], Any]:
    """By kind and name, as kustomize builds them."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl")
    command = [kubectl, "kustomize", DEPLOY / "kubernetes" / folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {(m["kind"], m["metadata"]["name"]): m for m in yaml.safe_load_all(done.stdout)}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", ())
    assert all(e["operator"] == "In" for e in expressions)
    equal = selector.get("matchLabels", {}).items() <= labels.items()
    return equal and all(labels.get(e["key"]) in e["values"] for e in expressions)


@pytest.mark.parametrize("name", MEMBERS)
def test_manifests_of_one_member(name: str) -> None:
    built = manifests(name)
    full = f"tessera-{name}"
    kinds = ("NetworkPolicy", "PodDisruptionBudget", "Service", "StatefulSet")
    assert sorted(built) == [(kind, full) for kind in kinds]
    spec = built["StatefulSet", full]["spec"]
    template = spec["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    (container,) = pod["containers"]
    options = parsed(container["args"])
    assert container["args"][0] == ("dealer" if name == "dealer" else "party")
    assert name == "dealer" or f"party{options.party}" == name
    assert pod["terminationGracePeriodSeconds"] > options.grace + 2
    # Where things are mounted is where the command looks for them.
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    assert set(mounts) <= set(volumes) | {c["metadata"]["name"] for c in spec["volumeClaimTemplates"]}
    assert options.cluster.is_relative_to(mounts["cluster"])
    assert options.key.is_relative_to(mounts["key"])
    assert options.data.parent == mounts["data"]
    assert volumes["secret"]["secret"]["secretName"] == f"{full}-key"
    (first,) = pod["initContainers"]
    assert first["command"][-1] == str(options.key)
    # What the namespace's level "restricted" asks for.
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for one in (container, first):
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        assert one["image"] == compose()["services"]["dealer"]["image"]
    # All of it is about this pod, at its port.
    (port,) = container["ports"]
    assert port["containerPort"] == (7000 if name == "dealer" else 7001)
    service = built["Service", full]["spec"]
    assert [p["port"] for p in service["ports"]] == [port["containerPort"]]
    assert service["selector"].items() <= labels.items()
    assert selects(spec["selector"], labels)
    assert selects(built["PodDisruptionBudget", full]["spec"]["selector"], labels)
    assert {container[f"{kind}Probe"]["tcpSocket"]["port"] for kind in ("startup", "readiness", "liveness")} == {
        "tessera"
    }


def test_network_policies_let_members_in_and_nobody_else() -> None:
    built = manifests("trial")
    pods = {name: built["StatefulSet", f"tessera-{name}"]["spec"]["template"]["metadata"]["labels"] for name in MEMBERS}
    client = {"tessera/role": "client"}
    for name in MEMBERS:
        policy = built["NetworkPolicy", f"tessera-{name}"]["spec"]
        assert [other for other in MEMBERS if selects(policy["podSelector"], pods[other])] == [name]
        ((source,),) = [rule["from"] for rule in policy["ingress"]]
        assert all(selects(source["podSelector"], labels) for labels in (*pods.values(), client))
        assert not selects(source["podSelector"], {"app.kubernetes.io/name": "tessera"})
        (target,) = policy["egress"][0]["to"]
        assert all(selects(target["podSelector"], labels) for labels in pods.values())
        assert not selects(target["podSelector"], client)


RAY_FIELDS = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
HEAD_FIELDS = {"serviceType", "rayStartParams", "template"}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
"""Of KubeRay's RayCluster, ray.io/v1, those that the manifest has: all of it was compared with the operator's schema
(ray-operator/config/crd/bases/ray.io_rayclusters.yaml)."""


def test_manifests_of_a_party_on_ray() -> None:
    built = manifests("party0-ray")
    full = "tessera-party0"
    cluster = built["RayCluster", full]
    spec = cluster["spec"]
    head, (group,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert cluster["apiVersion"] == "ray.io/v1"
    assert (set(spec), set(head), set(group)) == (RAY_FIELDS, HEAD_FIELDS, GROUP_FIELDS)
    requirement = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["cluster"]
    assert requirement[0].startswith(f"ray>={spec['rayVersion'].rpartition('.')[0]},")
    # The head is started beside Ray's, on its node, where no worker is.
    pod, labels = head["template"]["spec"], head["template"]["metadata"]["labels"]
    (container,), (first,) = pod["containers"], pod["initContainers"]
    script = container["args"][0].replace("\\\n", " ").splitlines()
    assert any("$KUBERAY_GEN_RAY_START_CMD" in line for line in script)
    assert cluster["metadata"]["annotations"]["ray.io/overwrite-container-cmd"] == "true"
    assert subprocess.run(["bash", "-n"], input="\n".join(script), text=True, check=False).returncode == 0
    (line,) = (line for line in script if line.startswith("tessera "))
    command = shlex.split(line.removesuffix("&"))[1:]
    options = parsed(command)
    assert (command[:2], options.engine, options.address) == (["party", "0"], "ray", "auto")
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert pod["terminationGracePeriodSeconds"] > options.grace + 2
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    assert set(mounts) | {"secret"} == set(volumes)
    assert options.cluster.is_relative_to(mounts["cluster"]) and options.key.is_relative_to(mounts["key"])
    assert options.data.parent == mounts["data"] and first["command"][-1] == str(options.key)
    assert ("PersistentVolumeClaim", volumes["data"]["persistentVolumeClaim"]["claimName"]) in built
    # As many pods as workers, each of one processor; of secrets they see nothing.
    assert {options.workers} == {group[f] for f in ("replicas", "minReplicas", "maxReplicas")}
    workers, worker_labels = group["template"]["spec"], group["template"]["metadata"]["labels"]
    (worker,) = workers["containers"]
    assert int(group["rayStartParams"]["num-cpus"]) == int(worker["resources"]["requests"]["cpu"]) == 1
    assert "$KUBERAY_GEN_RAY_START_CMD" in worker["args"][0]
    assert [set(volume) for volume in workers["volumes"]] == [{"name", "emptyDir"}]
    for one in (pod, workers):
        assert one["securityContext"]["runAsNonRoot"] is True
        assert one["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for one in (container, first, worker):
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert one["image"] == container["image"]
    assert built["Service", full]["spec"]["selector"].items() <= labels.items()
    # Ray's ports are for this party's own pods; workers meet others' at the ports that they are told.
    own, another = {"ray.io/cluster": full}, {**worker_labels, "tessera/member": "party1"}
    for kind, pods in (("head", labels), ("workers", worker_labels)):
        policy = built["NetworkPolicy", f"{full}-{kind}"]["spec"]
        assert selects(policy["podSelector"], pods)
        mine, others = policy["ingress"]
        assert "ports" not in mine and [selects(one["podSelector"], own) for one in mine["from"]] == [True]
        assert not any(selects(one["podSelector"], another) for one in mine["from"])
        assert all(set(one) == {"podSelector"} for one in (*mine["from"], *others["from"]))
        (port,) = others["ports"]
        if kind == "head":
            assert port["port"] == "tessera" and container["ports"][0]["name"] == "tessera"
            assert not any(selects(one["podSelector"], another) for one in others["from"])
        else:
            assert tuple(range(port["port"], port["endPort"] + 1)) == options.worker_ports
            assert [selects(one["podSelector"], another) for one in others["from"]] == [True]
            # Of a dealer's workers the last party's head collects what is dealt ahead.
            head_of_another = {**labels, "tessera/member": "party1"}
            assert [selects(one["podSelector"], head_of_another) for one in others["from"]] == [True]
        ways = [(o.get("ports"), o["to"]) for o in policy["egress"]]
        (met,) = (to for ports, to in ways if ports and ports[0].get("endPort") == options.worker_ports[-1])
        assert [selects(one["podSelector"], another) for one in met] == [True]


# -- the guide ---------------------------------------------------------------------------------------------------------

BLOCK = re.compile(r"(?:<!-- walk: (?P<host>\S+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.S)


def commands_in(text: str) -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


def test_every_command_of_the_guide_exists() -> None:
    text = GUIDE.read_text()
    blocks = [match for match in BLOCK.finditer(text) if match["language"] == "sh"]
    commands = [line[1:] for block in blocks for line in commands_in(block["text"]) if line[0] == "tessera"]
    commands += [shlex.split(found)[1:] for found in re.findall(r"^ExecStart=(\S*tessera .*)$", text, re.M)]
    commands += [shlex.split(found) for found in re.findall(r"`tessera ([a-z]+ --[^`]*)`", text)]
    commands = [[word.replace("%i", "0") for word in command] for command in commands if command != ["--version"]]
    assert len(commands) > 15
    for command in commands:
        parsed(command)
    # Options that are only mentioned.
    known = {
        option
        for name in COMMANDS
        for action in parser_for([name])._subparsers._group_actions  # type: ignore[union-attr]
        for option in action.choices[name]._option_string_actions  # type: ignore[index]
    }
    prose = BLOCK.sub("", text)
    assert {f"--{name}" for name in re.findall(r"`--([a-z-]+)", prose)} <= known


def test_files_that_the_guide_names_are_there() -> None:
    named = set(re.findall(r"deploy/(?:systemd|docker|kubernetes)[\w/.@-]*", GUIDE.read_text()))
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name.rstrip(".")).exists()] == []


class Walk:
    """The guide's steps, with a folder for each host, and a host of its own where this machine has them."""

    def __init__(self, folder: Path, addresses: dict[str, str], before: Callable[[str], list[str]]) -> None:
        self.folder = folder
        self.addresses = addresses
        self.before = before
        """What to put before a command to have it run on a host."""
        self.public: dict[str, str] = {}
        self.servers: dict[str, subprocess.Popen[str]] = {}
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def host(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    def tessera(self, host: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*self.before(host), sys.executable, "-m", "parties.commands.command_line", *arguments]
        done = subprocess.run(
            command, cwd=self.host(host), env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done

    def filled_in(self, word: str) -> str:
        """The guide's word with this machine's addresses, and the public keys that were read out."""
        for name, address in self.addresses.items():
            word = re.sub(rf"\b{name}\.example:\d+", address, word)
        name, found, rest = word.partition("=")
        return f"{name}={self.public[name]}" if found and rest == "..." else word

    def start(self, name: str, unit: Path, instance: str) -> None:
        """As systemd would."""
        host = self.host(name)
        (host / "credentials").mkdir(mode=0o700)
        (host / f"{name}.key").rename(host / "credentials" / "key")
        _, *arguments = exec_start(unit, instance=instance, credentials=str(host / "credentials"), state=str(host))
        words = [str(host / "cluster.toml") if word == "/etc/tessera/cluster.toml" else word for word in arguments]
        listening = str(host / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, (host / "log").open("w") as log:
            manager.bind(listening)
            manager.settimeout(120)
            self.servers[name] = subprocess.Popen(
                [*self.before(name), sys.executable, "-m", "parties.commands.command_line", *words],
                env={**self.environment, "NOTIFY_SOCKET": listening, "WATCHDOG_USEC": "60000000"},
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            assert manager.recv(100) == b"READY=1", (host / "log").read_text()
            assert manager.recv(100) == b"WATCHDOG=1"
        stdout = self.servers[name].stdout
        assert stdout is not None
        assert stdout.readline().strip() == READY

    def stop(self) -> list[int]:
        for process in self.servers.values():
            process.terminate()
        codes = []
        for process in self.servers.values():
            try:
                codes.append(process.wait(60))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
            if process.stdout is not None:
                process.stdout.close()
        self.servers.clear()
        return codes


SERVERS = ("dealer", "hospital", "university", "institute")


@pytest.fixture(params=[pytest.param(place, marks=pytest.mark.slow) for place in ("hosts", "loopback")])
def walk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Walk]:
    if request.param == "loopback":
        with reserved_ports(len(SERVERS)) as ports:
            addresses = {name: f"127.0.0.1:{port}" for name, port in zip(SERVERS, ports, strict=True)}
            made = Walk(tmp_path, addresses, lambda _: [])
            yield made
            made.stop()
        return
    from benchmarks.network.emulation import EmulatedNetwork
    from mpc.errors import UsageError

    try:
        network = EmulatedNetwork((*SERVERS, "company", "clinic")).__enter__()
    except UsageError as error:
        pytest.skip(str(error))
    try:
        hosts: dict[str, Host] = network.hosts
        ports = {name: 7000 if name == "dealer" else 7001 for name in SERVERS}
        addresses = {name: f"{hosts[name].address}:{port}" for name, port in ports.items()}
        made = Walk(tmp_path, addresses, lambda name: hosts[name].command())
        yield made
        made.stop()
    finally:
        network.__exit__()


def test_the_guide_leads_to_a_prediction(walk: Walk) -> None:
    answers: list[dict[str, Any]] = []
    for block in BLOCK.finditer(GUIDE.read_text()):
        host = block["host"]
        if host is None:
            continue
        for _, *words in commands_in(block["text"]):
            if words[0] == "check" and not walk.servers:
                handed_out(walk)
                started(walk)
            done = walk.tessera(host, *map(walk.filled_in, words))
            if words[0] == "keygen":
                walk.public[words[1]] = KeyPair.load(walk.host(host) / f"{words[1]}.key").public
                assert walk.public[words[1]] in done.stdout
            if words[0] == "models":
                assert "clinic (predict)" in done.stdout
            if words[0] == "predict":
                answers.append(json.loads(done.stdout) if "--json" in words else {"text": done.stdout})
    first, second = answers
    assert second["predictions"][0]["class"] in first["text"]
    assert second["run"]["online"]["rounds"] == 8
    # A prediction from stock, and four servers that end as they should.
    assert walk.stop() == [0, 0, 0, 0]
    for name in SERVERS:
        data = next(walk.host(name).glob("tessera-*"))
        assert data.stat().st_mode & 0o777 == 0o700


def handed_out(walk: Walk) -> None:
    """Section 3's file, to everyone; the photograph, to the clinic."""
    file = walk.host("company") / "skin" / "cluster.toml"
    for name in (*SERVERS, "company", "clinic"):
        shutil.copy(file, walk.host(name) / "cluster.toml")
    shutil.copy(samples()[0].path, walk.host("clinic") / "lesion.png")
    assert [path.name for path in file.parent.iterdir()] == ["cluster.toml"]


def started(walk: Walk) -> None:
    """Section 5."""
    dealer, party = UNITS
    walk.start("dealer", dealer, "")
    for index, member in enumerate(Cluster.load(walk.host("dealer") / "cluster.toml").parties):
        walk.start(member.name, party, str(index))


def test_what_the_guide_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", GUIDE.read_text())
    assert links
    assert [link for link in links if not (GUIDE.parent / link).exists()] == []
