"""Copies of the checkout for `scripts/mutants`, in which things may go wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time

from measure import CHECKOUT

PLACE = CHECKOUT / ".cache/mutants"
#: In namespaces of its own: everything but the copy and a private /tmp can only be read.
ISOLATED = (  # without copies of mounts, which would keep their daemons alive
    "umount -a -l -t fuse,fuse.romfsfs; "
    'mount --bind "$1" /tmp && mount --bind "$2" "$2" && mount -o remount,bind,ro / && cd "$2"'
    ' && shift 2 && { "$@"; exit $?; }'
)
#: what runs now, to be ended with us
RUNNING: set[subprocess.Popen[bytes]] = set()


class Copy:
    """A copy of the checkout as it is now, with a .venv of its own. Used by one thread."""

    def __init__(self, name: str) -> None:
        self.root, self.tmp = PLACE / name, PLACE / f"{name}.tmp"
        self._clock = int(time.time())
        words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(words, cwd=CHECKOUT, capture_output=True, check=True).stdout
        names = [name for name in listed.decode().split("\0") if (CHECKOUT / name).is_file()]
        for folder in ("romfsfs", "tests"):
            for old in list((self.root / folder).rglob("*.*")):
                if old.is_file() and str(old.relative_to(self.root)) not in names:
                    old.unlink()
        for file in names:
            source, target = CHECKOUT / file, self.root / file
            if not target.exists() or target.read_bytes() != source.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                self.write(file, source.read_bytes())
                target.chmod(source.stat().st_mode)
        if not (self.root / ".venv").exists():
            self._make_venv()
        (self.root / ".cache").mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (self.root / ".cache/micropython").symlink_to(CHECKOUT / ".cache/micropython")

    def write(self, file: str, content: bytes) -> None:
        # A compiled file is believed when size and second of its source are as it says.
        self._clock += 1
        (self.root / file).write_bytes(content)
        os.utime(self.root / file, (self._clock, self._clock))

    def _make_venv(self) -> None:
        """Hard links, but for the files that name the checkout: they name the copy."""
        new = self.root / ".venv.new"
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(CHECKOUT / ".venv", new, symlinks=True, copy_function=os.link)
        packages = next(new.glob("lib/python*/site-packages"))
        own = [*new.glob("bin/*"), new / "pyvenv.cfg", *packages.glob("__editable__*")]
        for path in [*own, *packages.glob("*.pth"), *packages.glob("romfsfs-*/*")]:
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes().replace(bytes(CHECKOUT), bytes(self.root))
                mode = path.stat().st_mode
                path.unlink()
                path.write_bytes(content)
                path.chmod(mode)
        for path in packages.glob("__pycache__/__editable__*"):
            path.unlink()
        new.rename(self.root / ".venv")

    def pytest(self, tests: list[str], seconds: float, *options: str) -> tuple[int | None, str]:
        """Its exit code and what it printed; None when the time was over."""
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir(parents=True)
        self.tmp.chmod(0o1777)
        (self.tmp / "tests").write_text("\n".join(tests))
        argv = [
            "unshare", "--fork", "--pid", "--kill-child", "--mount", "--mount-proc",
            "bash", "-c", ISOLATED, "bash", self.tmp, self.root,
            ".venv/bin/python", "-m", "pytest", "-q", "-rfE", "--tb=short", "-p", "no:xdist",
            "-p", "no:cacheprovider", *options, "@/tmp/tests",
        ]  # fmt: skip
        data = os.environ.get("ROMFSFS_TEST_DATA", str(CHECKOUT.parent / "shared/data"))
        with open(self.tmp / "output", "w+b") as output:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, "ROMFSFS_TEST_DATA": data}, start_new_session=True,
            )  # fmt: skip
            RUNNING.add(process)
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                process.kill()  # and all that it started, by --kill-child
                process.wait()
                RUNNING.discard(process)
            output.seek(0)
            return code, output.read().decode(errors="replace")
