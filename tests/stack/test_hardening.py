"""The restrictions of the running containers, as reported by Docker and the kernel rather than the Compose file."""

from typing import Any

import pytest

SERVICES = ["train", "web", "apache"]
MIB = 2**20

# The most that each image may add to its base image, in bytes.
SIZES = {"train": 1300e6, "web": 400e6, "apache": 200e6}
BASES = {"train": "python:3.11-slim-bookworm", "web": "python:3.11-slim-bookworm", "apache": "debian:bookworm-slim"}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def host_config(stack: Any, service: str) -> dict[str, Any]:
    return dict(stack.container(service).attrs["HostConfig"])


def test_no_container_runs_as_root(serving: Any, service: str) -> None:
    assert serving.container(service).attrs["Config"]["User"] == ("www-data" if service == "apache" else "10001:10001")


def test_training_and_web_run_as_the_same_named_user(serving: Any) -> None:
    code = "import os, pwd; u = pwd.getpwuid(os.getuid()); print(u.pw_uid, u.pw_gid, u.pw_name, os.environ['HOME'])"
    for service in ("train", "web"):
        image = f"{serving.project}-{service}"
        output = serving.docker.containers.run(image, ["python", "-c", code], remove=True, network_disabled=True)
        assert output.decode().split() == ["10001", "10001", "gptbox", "/home/gptbox"]


def test_the_root_file_system_is_read_only(serving: Any, service: str) -> None:
    config = host_config(serving, service)
    assert config["ReadonlyRootfs"] is True
    assert list(config["Tmpfs"]) == ["/tmp"]


@pytest.mark.parametrize("running", ["web", "apache"])
def test_processes_can_write_only_to_tmp(serving: Any, running: str) -> None:
    assert serving.inside(running, "sh", "-c", "echo x >/tmp/probe && rm /tmp/probe")[0] == 0
    for folder in ("/", "/etc", "/opt", "/var", "/usr/local/bin"):
        assert serving.inside(running, "sh", "-c", f"echo x >{folder}/probe")[0] != 0, folder


def test_web_can_only_read_the_models(serving: Any) -> None:
    assert serving.inside("web", "test", "-r", "/models/little/status.json")[0] == 0
    assert serving.inside("web", "sh", "-c", "echo x >/models/probe")[0] != 0
    modes = {mount["Destination"]: mount["RW"] for mount in serving.container("web").attrs["Mounts"]}
    assert modes == {"/models": False}


def test_training_can_only_read_the_texts(serving: Any) -> None:
    modes = {mount["Destination"]: mount["RW"] for mount in serving.container("train").attrs["Mounts"]}
    assert modes == {"/models": True, "/data": False}


def test_there_are_no_capabilities_and_none_can_be_gained(serving: Any, service: str) -> None:
    config = host_config(serving, service)
    assert config["CapDrop"] == ["ALL"]
    assert not config["CapAdd"]
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert config["Privileged"] is False
    assert not config["Devices"]
    for namespace in ("PidMode", "UTSMode", "UsernsMode"):
        assert config[namespace] == ""


@pytest.mark.parametrize("running", ["web", "apache"])
def test_the_kernel_confirms_the_restrictions(serving: Any, running: str) -> None:
    text = serving.inside(running, "cat", "/proc/1/status")[1]
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, name
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_memory_processes_and_logs_are_limited(serving: Any, service: str) -> None:
    config = host_config(serving, service)
    assert config["Memory"] == {"train": 1024, "web": 320, "apache": 96}[service] * MIB
    assert config["PidsLimit"] == {"train": 256, "web": 128, "apache": 512}[service]
    assert config["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "3"}}
    assert config["Init"] is True


def test_the_memory_limits_fit_a_machine_with_2_gb(serving: Any) -> None:
    assert sum(host_config(serving, service)["Memory"] for service in SERVICES) <= 1500 * MIB


def test_training_has_lower_priority(serving: Any) -> None:
    assert 0 < host_config(serving, "train")["CpuShares"] < 1024
    assert host_config(serving, "train")["OomScoreAdj"] > 0
    assert {host_config(serving, service)["CpuShares"] for service in ("web", "apache")} == {0}, "0 is 1,024 shares"


def test_restart_policies(serving: Any) -> None:
    policies = {service: host_config(serving, service)["RestartPolicy"] for service in SERVICES}
    assert policies["web"]["Name"] == policies["apache"]["Name"] == "unless-stopped"
    assert policies["train"] == {"Name": "on-failure", "MaximumRetryCount": 3}


def test_only_apache_publishes_a_port(serving: Any) -> None:
    published = {
        service: [port for ports in host_config(serving, service)["PortBindings"].values() for port in ports]
        for service in SERVICES
    }
    assert [(service, [port["HostPort"] for port in ports]) for service, ports in published.items() if ports] == [
        ("apache", [str(serving.port)])
    ]


def test_web_has_no_internet_access_and_training_has_its_own_network(serving: Any) -> None:
    networks = {
        service: {
            name.removeprefix(f"{serving.project}_")
            for name in serving.container(service).attrs["NetworkSettings"]["Networks"]
        }
        for service in SERVICES
    }
    assert networks == {"train": {"download"}, "web": {"inside"}, "apache": {"inside", "outside"}}
    (inside,) = serving.docker.networks.list(names=[f"{serving.project}_inside"])
    assert inside.attrs["Internal"] is True


def test_the_containers_are_healthy(serving: Any, until: Any) -> None:
    for running in ("web", "apache"):
        until(
            lambda running=running: serving.state(running)["Health"]["Status"] == "healthy",
            within=60, every=1, what=f"{running}'s good health",
        )  # fmt: skip


def test_the_images_are_small(serving: Any, service: str) -> None:
    image = serving.docker.images.get(f"{serving.project}-{service}").attrs["Size"]
    base = serving.docker.images.get(BASES[service]).attrs["Size"]
    assert image - base <= SIZES[service]


def test_the_images_contain_nothing_unnecessary(serving: Any) -> None:
    assert serving.inside("web", "python", "-c", "import torch")[0] != 0
    for command in ("gcc", "cc", "make", "git", "curl"):
        assert serving.inside("web", "sh", "-c", f"command -v {command}")[0] != 0, command
    look = "find / -xdev ( -name .git -o -name .env -o -name 'nvidia*' -o -name pip-cache ) -not -path '/proc/*' -print"
    for service in ("train", "web"):
        image = f"{serving.project}-{service}"
        command = ["sh", "-c", look.replace("( ", "\\( ").replace(" )", " \\)") + " 2>/dev/null; true"]
        assert serving.docker.containers.run(image, command, remove=True, network_disabled=True).decode() == ""


def test_serving_takes_little_memory(serving: Any) -> None:
    used = {}
    for running in ("web", "apache"):
        stats = serving.container(running).stats(stream=False)["memory_stats"]
        used[running] = stats["usage"] - stats["stats"].get(
            "total_inactive_file", stats["stats"].get("inactive_file", 0)
        )
    assert used["web"] < 200 * MIB
    assert used["apache"] < 80 * MIB
