"""What `zoo` prints, all of it (`tests/transcripts.py`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from convert.convert_helpers import make_model
from zoo_server import Server

from romfsfs.devices.open import open_device
from romfsfs.image.writer import encode
from romfsfs.session.rebase.read import OpenOptions, make_ready, session_for

HERE = Path(__file__).parent / "transcripts"
#: many commands, one after the other
pytestmark = pytest.mark.timeout(600)


def test_what_zoo_says(
    resources: Path, server: Server, tmp_path: Path, resource_zip: Path,
    retell: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shape = [1, 96, 96, 3]
    model = make_model([(0, [0], [1])], [(9, shape, 0), (9, shape, 0)], [0], [1])
    (resources / "models/st/person").mkdir()
    (resources / "models/st/person/person.tflite").write_bytes(model)
    with open(resources / "models/st/person/large.tflite", "wb") as file:
        file.truncate(9 << 20)
    image = tmp_path / "camera.img"
    image.write_bytes(encode({"main.py": b"pass\n"}))
    device = open_device(str(image), board="OPENMV4P", partition=None)
    make_ready(session_for(device, str(image), OpenOptions("OPENMV4P")), device)
    device.close()
    server.files["/zoo.zip"] = resource_zip.read_bytes()
    retell(HERE / "zoo.txt", {server.url: "http://zoo"})
