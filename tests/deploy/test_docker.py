"""The files for containers, read without docker: they parse, name files that exist, hold no secret, open no port."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.node import CONFIGURATION

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
COMPOSE = sorted(path.name for path in DOCKER.glob("compose*.yaml"))
DOCKERFILES = sorted(path.name for path in DOCKER.glob("Dockerfile.*"))
OUTSIDE = {("compose.tls.yaml", "5671:5671")}  # the only port for others, and it speaks TLS


def services(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / name).read_text())["services"]
    return found


def settings(text: str) -> dict[str, str]:
    lines = (line.split(" = ", 1) for line in text.splitlines() if " = " in line and not line.startswith("#"))
    return dict(lines)


def instructions(name: str) -> list[str]:
    text = re.sub(r"^#.*\n", "", (DOCKER / name).read_text(), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


def wrong_ports(name: str, service: dict[str, Any]) -> list[str]:
    return [one for one in service.get("ports", []) if not one.startswith("127.0.0.1:") and (name, one) not in OUTSIDE]


def missing_mounts(service: dict[str, Any]) -> list[Path]:
    """Files of this repository that a service mounts and that are not there; volumes and ${...} are not ours."""
    sources = [one.split(":")[0] for one in service.get("volumes", [])]
    ours = [(DOCKER / one).resolve() for one in sources if one.startswith(".")]
    return [path for path in ours if not path.exists()]


def test_all_files_are_seen() -> None:
    assert COMPOSE == ["compose.site.yaml", "compose.tls.yaml", "compose.yaml"]
    assert [f"Dockerfile.{one}" for one in ("aggregator", "broker", "prometheus", "site")] == DOCKERFILES
    parts = {"broker", "aggregator", "site-a", "site-b", "prometheus", "grafana"}
    assert set(services("compose.yaml")) == parts


@pytest.mark.parametrize("name", COMPOSE)
def test_ports_are_this_machines_and_mounts_exist(name: str) -> None:
    for service in services(name).values():
        assert wrong_ports(name, service) == []
        assert missing_mounts(service) == []


def test_an_open_port_and_a_missing_file_are_seen() -> None:
    service = {"ports": ["15672:15672", "127.0.0.1:9090:9090"], "volumes": ["./nothing.conf:/x:ro", "data:/data"]}
    assert wrong_ports("compose.yaml", service) == ["15672:15672"]
    assert missing_mounts(service) == [DOCKER / "nothing.conf"]


@pytest.mark.parametrize("name", ["compose.yaml", "compose.site.yaml"])
def test_containers_are_without_rights_and_read_only(name: str) -> None:
    for service in services(name).values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_volumes_are_declared_and_own_programs_have_a_check() -> None:
    for name in ("compose.yaml", "compose.site.yaml"):
        declared = set(yaml.safe_load((DOCKER / name).read_text())["volumes"])
        for service in services(name).values():
            named = {one.split(":")[0] for one in service["volumes"] if one[0].isalpha()}
            assert named <= declared
            assert ("healthcheck" in service) == (
                service["image"] in {f"fedqueue-{x}" for x in ("broker", "aggregator", "site")}
            )


@pytest.mark.parametrize("name", [*COMPOSE, *DOCKERFILES, "broker.sh", "rabbitmq.conf", "tls.conf", "prometheus.yml"])
def test_no_file_holds_a_password(name: str) -> None:
    text = (DOCKER / name).read_text()
    assert re.findall(r"amqps?://[^ ]*:[^ ]*@", text) == []
    assert re.findall(r"(?i)\b(?:pass|password|secret|token)\b\s*[=:]\s*['\"]?(?!%s)\w+", text) == []


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_nobody_special_from_a_base_that_can_be_chosen(name: str) -> None:
    found = instructions(name)
    assert found[0].startswith("ARG BASE=")
    assert {line.split(" AS ")[0] for line in found if line.startswith("FROM")} == {"FROM ${BASE}"}
    users = [line.split()[1] for line in found if line.startswith("USER")]
    assert users in (["fedqueue"], ["rabbitmq"], ["prometheus"])


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_copies_exists(name: str) -> None:
    copied = [
        shlex.split(line)[1:-1] for line in instructions(name) if line.startswith("COPY") and "--from" not in line
    ]
    assert [one for sources in copied for one in sources if not (ROOT / one).exists()] == []


def test_only_named_parts_of_a_checkout_go_to_an_image() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    packages = {"broker", "aggregator", "site_worker", "deploy"}
    assert {line[1:] for line in lines if line.startswith("!")} == packages | {
        "pyproject.toml",
        "README.md",
        "constraints.txt",
    }


def test_the_broker_is_set_as_a_private_node_is() -> None:
    ours, private = settings((DOCKER / "rabbitmq.conf").read_text()), settings(CONFIGURATION)
    assert ours["raft.wal_max_size_bytes"] == private["raft.wal_max_size_bytes"]
    assert int(ours["consumer_timeout"]) == 10 * 24 * 3600 * 1000
    assert "loopback_users" not in ours


def test_prometheus_asks_each_service_at_the_port_it_is_given() -> None:
    jobs = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    asked = {target for job in jobs for group in job["static_configs"] for target in group["targets"]}
    given = {
        f"{name}:{service['environment']['FEDQUEUE_METRICS__PORT']}"
        for name, service in services("compose.yaml").items()
        if "environment" in service
    }
    assert asked == given | {"broker:15692"}


def test_prometheus_asks_among_containers_the_jobs_that_alerts_and_dashboard_know() -> None:
    def jobs(file: str) -> dict[str, Any]:
        asked = yaml.safe_load((ROOT / "deploy" / file / "prometheus.yml").read_text())["scrape_configs"]
        return {one["job_name"]: (one.get("metrics_path"), one.get("params")) for one in asked}

    assert jobs("docker") == jobs("prometheus")


def test_grafana_has_its_source_under_the_name_that_the_dashboard_uses() -> None:
    (source,) = yaml.safe_load((DOCKER / "grafana-datasource.yaml").read_text())["datasources"]
    provisioned = ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yaml"
    (elsewhere,) = yaml.safe_load(provisioned.read_text())["datasources"]
    assert {**source, "url": elsewhere["url"]} == elsewhere
