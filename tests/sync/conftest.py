from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundle_samples import make_store
from servers import PASSWORD, USER, RegistryServer, SshServer, running

from edge_cmcl.bundle import Store
from edge_cmcl.sync.settings import LinkSettings


@pytest.fixture(scope="session")
def shared_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """One registry for all tests that only put something into a repository of their own."""
    with running(RegistryServer(tmp_path_factory.mktemp("registry"))) as server:
        yield server


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[RegistryServer]:
    """A registry that a test may kill."""
    with running(RegistryServer(tmp_path / "registry")) as server:
        yield server


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    server = SshServer(tmp_path_factory.mktemp("ssh"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of the registries above, and none of the user who runs the tests."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))
    monkeypatch.setenv("EDGE_CMCL_REGISTRY_USER", USER)
    monkeypatch.setenv("EDGE_CMCL_REGISTRY_PASSWORD", PASSWORD)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a base and one update: tags "base" and "current"."""
    return make_store(tmp_path / "store")


@pytest.fixture(params=["registry", "folder", "ssh"])
def remote_at(
    request: pytest.FixtureRequest, credentials: None, tmp_path: Path
) -> Callable[[str], tuple[str, LinkSettings]]:
    """Return the address of an empty remote of each kind, and the settings of the device of that name."""
    kind = str(request.param)
    if kind == "registry":
        server = request.getfixturevalue("shared_registry")
        repository = "".join(c for c in request.node.name.lower() if c.isalnum())[:100]
        return lambda device: (server.url(repository), LinkSettings(work=tmp_path / device, ca_file=server.ca))
    shared = tmp_path / "shared-folder"
    shared.mkdir()
    if kind == "folder":
        return lambda device: (f"file://{shared}", LinkSettings(work=tmp_path / device))
    ssh = request.getfixturevalue("ssh_server")
    keys = {"known_hosts": ssh.known_hosts, "identity": ssh.identity}
    return lambda device: (ssh.url(shared), LinkSettings(work=tmp_path / device, **keys))
