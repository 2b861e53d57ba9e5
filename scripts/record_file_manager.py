"""Draws OUT.png: a mount in the file manager Thunar, with the menu that `desktop --install` makes.

Thunar is the real one, on a screen of its own (tests/trust/desktop.py). It runs in a namespace
where the temporary home is /home/me and the user is not root, of whom Thunar would warn.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "tests/trust")]

from desktop import Desktop  # noqa: E402
from thunar import Thunar  # noqa: E402

HOME = Path("/home/me")
SIZE = (852, 516)
_NAMESPACE = "mount -t tmpfs tmpfs /home && mkdir {home} && mount --rbind {there} {home} && exec $@"


def environment_of(home: Path) -> dict[str, str]:
    """Of a user with this home, whose state and cache lie beside it."""
    return {
        **os.environ, "HOME": str(home), "PYTHONPATH": str(CHECKOUT),
        "XDG_CONFIG_HOME": f"{home}/.config", "XDG_DATA_HOME": f"{home}/.local/share",
        "ROMFSFS_STATE_DIR": f"{home.parent}/state", "ROMFSFS_CACHE_DIR": f"{home.parent}/cache",
    }  # fmt: skip


def prepare(home: Path, environment: dict[str, str]) -> None:
    """An image with a few files in it, mounted at ~/cam, and the menu entries."""
    romfsfs = [sys.executable, "-m", "romfsfs"]

    def run(*words: object) -> None:
        command = [*romfsfs, *map(str, words)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

    cam = home / "cam"
    (cam).mkdir(parents=True)
    run("new", home / "app.img", "--board", "OPENMV_AE3")
    run("mount", home / "app.img", cam)
    example = [sys.executable, CHECKOUT / "scripts/example_model.py", cam / "person_detect.tflite"]
    subprocess.run(example, check=True)
    (cam / "person_detect.txt").write_text("no person\nperson\n")
    (cam / "main.py").write_text("import app\n")
    (cam / "app.py").write_text("print('hello')\n")
    (cam / "lib").mkdir()
    run("desktop", "--install")


def draw(out: Path) -> None:
    desktop = Desktop(SIZE, HOME)
    try:
        thunar = Thunar(desktop, HOME / "cam")
        thunar.status("4 files")
        desktop.resize(SIZE[0] - 10, SIZE[1] - 34)  # the rest is the window's frame
        desktop.point(desktop.middle(thunar.open_menu("Commit to camera", 550, 205)))
        desktop.until(lambda: desktop.picture() == desktop.picture())
        out.write_bytes(desktop.picture())
    finally:
        desktop.close()


def main() -> None:
    if sys.argv[1] == "--draw":
        draw(Path(sys.argv[2]))
        return
    out = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="romfsfs-record.", dir="/tmp") as folder:
        home = Path(folder) / "home"
        environment = environment_of(home)
        try:
            prepare(home, environment)
            namespace = _NAMESPACE.format(home=HOME, there=home).replace("$@", '"$@"')
            subprocess.run(
                ["unshare", "--user", "--mount", "--keep-caps", "--map-user=1000",
                 "--map-group=1000", "sh", "-euc", namespace, "sh", sys.executable, __file__,
                 "--draw", out], check=True,
            )  # fmt: skip
        finally:
            subprocess.run(["fusermount3", "-u", home / "cam"], check=True)


if __name__ == "__main__":
    main()
