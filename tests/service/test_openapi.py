from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from running_service import RunningService

from edge_cmcl.bundle import Store


def test_the_service_is_as_its_openapi_document_says(
    serve: Callable[..., RunningService], taught: Store, tmp_path: Path
) -> None:
    """Every check but one: whether a recording is taken depends on lengths that must agree, which no schema can say."""
    running = serve("--store", taught.root, "--port", "0")
    program = Path(sys.executable).with_name("st")
    url = f"{running.client.base_url}/openapi.json"
    options = ["--max-examples", "2", "--seed", "1", "--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run([program, "run", url, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = running.client.get("/metrics").text
    for path in ("/embed", "/classify", "/retrieve"):
        for status in (200, 405, 415, 422):
            assert f'edge_cmcl_requests_total{{path="{path}",status="{status}"}}' in metrics
    assert 'status="500"' not in metrics
