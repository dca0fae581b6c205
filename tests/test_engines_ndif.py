"""Engine ndif: what is sent runs on a host without this package, and what cannot be had is refused before anything is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from nnsight import CONFIG

from steerlab.engines.plain import check_function
from steerlab.errors import SteerlabError
from steerlab.loading import load
from tests.command import save_model
from tests.walls import ROOT

HOST = """
import json, sys
from nnsight import TransformersModel
from nnsight.schema.request import RequestModel
from nnsight.tracing.tracer import inc
model = TransformersModel(sys.argv[1], task="text-generation", dispatch=True)
payload = open(sys.argv[2], "rb").read()
tracer = RequestModel.deserialize(payload, model._remoteable_persistent_objects())
inc()  # a request counts as being inside a trace
tracer.execute(tracer.info.code)
found = tracer.info.frame.f_locals["found"]
assert not [name for name in sys.modules if name.startswith("steerlab")]
print(json.dumps([value.tolist() for value in found]))
"""
SENDER = """
import json, sys
import torch
from steerlab.loading import load
from steerlab.steering import Gate, Intervention, Plan, TokenContext
from steerlab.types import Site
from tests.engine_contract import TEXTS, recorded, vector
sent = recorded()
model = load(sys.argv[1], engine="ndif", remote="local")
batch = model.encode(TEXTS[:2])
rows = ((Intervention(vector(model, 1), 1, "rotate", strength=0.5, gate=Gate(-1.0)),), (Intervention(vector(model, 2), (0, 2)),))
edits = model.compile(Plan(rows)).edits(TokenContext(batch.relative, batch.input_ids, batch.real))
seen = model.forward(batch, read=[Site(3)], edit=edits)
open(sys.argv[2], "wb").write(sent[-1])
print(json.dumps([seen[Site(3)].tolist()]))
"""


@pytest.mark.slow
def test_a_host_without_this_package_runs_what_it_is_sent(tmp_path: Path) -> None:
    """The same bytes in a process that has nnsight and the model, and nothing of ours."""
    words = (str(save_model(tmp_path / "llama")), str(tmp_path / "payload"))
    said = []
    for script, path in ((SENDER, str(ROOT)), (HOST, "")):
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=ROOT if path else tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        said.append(json.loads(done.stdout.splitlines()[-1]))
    assert said[0] == said[1]


class Carrier:
    """Something that is no tensor and no plain function."""

    shift = 1.0


def test_an_edit_that_carries_objects_is_refused() -> None:
    carrier, push = Carrier(), torch.ones(3)
    check_function(lambda h: h + push, "the edit")
    with pytest.raises(SteerlabError, match="cannot be sent .*uses nothing but tensors and plain functions"):
        check_function(lambda h: h + carrier.shift, "the edit")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A server that answers /status as NDIF does, with the deployments put into the dict."""
    deployments: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"deployments": deployments}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(CONFIG.API, "HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(CONFIG.API, "APIKEY", None)
    monkeypatch.setenv("NDIF_API_KEY", "a key")
    yield deployments
    server.shutdown()
    thread.join()
    server.server_close()


def deployed(repo: str, state: str) -> dict[str, Any]:
    return {"repo_id": repo, "deployment_level": "HOT", "application_state": state, "model_key": f"nnsight.M:{repo}"}


def test_the_service_is_asked_before_anything_is_loaded(
    service: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    service["a"] = deployed("big/model", "RUNNING")
    service["b"] = deployed("big/other", "DEPLOYING")
    with pytest.raises(SteerlabError, match="my/model is not hosted by NDIF now: it runs big/model"):
        load("my/model", engine="ndif")
    with pytest.raises(SteerlabError, match="big/other is deploying at NDIF now: it runs big/model"):
        load("big/other", engine="ndif")
    with pytest.raises(SteerlabError, match="big/model.* could not be loaded"):  # hosted, and its config is not here
        load("big/model", engine="ndif")
    service.clear()
    with pytest.raises(SteerlabError, match="NDIF does not answer at http://127.0.0.1"):
        load("big/model", engine="ndif")
    monkeypatch.delenv("NDIF_API_KEY")
    monkeypatch.setattr(CONFIG.API, "APIKEY", None)
    with pytest.raises(SteerlabError, match="needs a key: set the environment variable NDIF_API_KEY"):
        load("big/model", engine="ndif")


@pytest.mark.parametrize(
    ("options", "because"),
    [
        ({"device": "cpu"}, "device was given for engine 'ndif'"),
        ({"adapter": "some/expert"}, "adapter was given for engine 'ndif'"),
        ({"remote": "http://elsewhere"}, "give 'local' to simulate"),
        ({"attn_implementation": "eager"}, "attn_implementation was given for engine 'ndif'"),
    ],
)
def test_what_the_service_decides_is_not_taken(options: dict[str, Any], because: str) -> None:
    with pytest.raises(SteerlabError, match=because):
        load("big/model", engine="ndif", **options)
