"""What people do in a mounted folder with the programs they have, as root and as a user."""

from __future__ import annotations

import pytest
from mounts import Mounted


def test_copies_moves_and_removes_trees(users_mount: Mounted) -> None:
    users_mount.sh("""
        mkdir -p lib/deep/er; echo 'print(1)' > lib/deep/er/a.py; chmod 600 lib/deep/er/a.py
        cp -a lib copy; cp -r lib plain; diff -r lib copy
        test "$(stat -c %a,%Y copy/deep/er/a.py)" = "$(stat -c %a,%Y lib/deep/er/a.py)"
        mv copy moved; test ! -e copy; mv moved/deep/er/a.py .; test -f a.py
        rm -r lib moved plain; test "$(ls -A)" = a.py
    """)


@pytest.mark.program("rsync")
def test_rsync_copies_nothing_the_second_time(users_mount: Mounted) -> None:
    source = users_mount.base / "source"
    source.mkdir()
    source.chmod(0o755)
    for number in range(20):
        (source / f"f{number}").write_text("x" * number)
    command = f"rsync -a --itemize-changes {source}/ {users_mount.mnt}/"
    assert len(users_mount.sh(command).splitlines()) >= 20
    assert users_mount.sh(command) == ""


@pytest.mark.program("tar")
def test_tar_packs_and_unpacks(users_mount: Mounted) -> None:
    users_mount.sh("""
        mkdir a; echo one > a/one; touch -d '2001-02-03 04:05:06.789' a/one
        tar cf ../state/t.tar a; rm -r a; tar xf ../state/t.tar
        test "$(cat a/one)" = one; tar df ../state/t.tar
    """)


@pytest.mark.program("git")
def test_git_keeps_a_repository(users_mount: Mounted) -> None:
    users_mount.sh("""
        export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
        git init -q -b main; git config user.email a@b; git config user.name a
        echo 1 > a.py; git add .; git commit -qm one
        echo 2 >> a.py; git commit -qam two; git checkout -q HEAD~1; test "$(cat a.py)" = 1
        git checkout -q main; test -z "$(git status --porcelain)"; git fsck; git gc -q
    """)


@pytest.mark.program("vim")
def test_vim_saves(users_mount: Mounted) -> None:
    users_mount.sh("""
        echo old > app.py
        for copy in yes no auto; do
            vim -u NONE -es -c "set backup writebackup backupcopy=$copy" \
                -c "%s/.*/$copy/" -c wq app.py < /dev/null
            test "$(cat app.py)" = "$copy"
        done
        test "$(ls -A)" = "app.py
app.py~"
    """)


def test_truncates_appends_and_changes_modes_and_times(users_mount: Mounted) -> None:
    users_mount.sh("""
        printf 0123456789 > f; truncate -s 4 f; test "$(cat f)" = 0123
        printf x >> f; printf y >> f; test "$(cat f)" = 0123xy
        truncate -s 1M f; test "$(stat -c %s f)" = 1048576
        : > f; test ! -s f
        chmod 4755 f; test "$(stat -c %a f)" = 4755; chmod 444 f; test "$(stat -c %a f)" = 444
        touch -d '2020-01-02 03:04:05.123456789 UTC' f
        test "$(TZ=UTC stat -c %y f)" = '2020-01-02 03:04:05.123456789 +0000'
        touch -a f; test "$(stat -c %Y f)" = 1577934245
    """)


def test_cutting_off_an_open_file_takes_its_set_id_bits(users_mount: Mounted) -> None:
    """As the system does, but for root; libfuse 3 is told the file and its mode, and no path."""
    users_mount.sh("""
        printf 0123456789 > f; chmod 6755 f
        python3 -c 'import os; os.ftruncate(os.open("f", os.O_RDWR), 4)'
        test "$(cat f)" = 0123
        test "$(stat -c %a f)" = "$(if [ "$(id -u)" = 0 ]; then echo 6755; else echo 755; fi)"
    """)


def test_new_files_have_the_makers_mode_and_owner(users_mount: Mounted) -> None:
    users_mount.sh("""
        umask 0; echo x > open; mkdir dir; test "$(stat -c %a open dir)" = "666
777"
        umask 077; echo x > closed; mkdir own; test "$(stat -c %a closed own)" = "600
700"
        test "$(stat -c %u:%g closed)" = "$(id -u):$(id -g)"
        chown "$(id -u):$(id -g)" closed
    """)


def test_links_and_devices_are_refused(users_mount: Mounted) -> None:
    users_mount.sh("""
        echo x > a
        ! ln a b 2>err; grep -q 'not permitted' err; ! ln -s a b 2>err; grep -q 'not permitted' err
        ! mkfifo p 2>err; grep -q 'not permitted' err
        rm err; test "$(ls -A)" = a
    """)


def test_df_shows_the_partition(users_place: Mounted) -> None:
    users_place.settings(capacity=1 << 20, used=256 << 10)
    users_place.mount()
    shown = users_place.sh("df -B1 --output=size,used,avail . | tail -1").split()
    assert shown == [str(1 << 20), str(256 << 10), str(768 << 10)]


def test_others_see_it_only_when_asked(place: Mounted, nobody: tuple[str, ...]) -> None:
    other = Mounted.__new__(Mounted)
    other.prefix, other.mnt = nobody, place.mnt
    place.mount()
    with pytest.raises(AssertionError, match="cd"):
        other.sh("ls")
    place.unmount()
    place.mount("-o", "allow_other")
    place.sh("echo 1 > roots; chmod 644 roots; mkdir -m 777 common")
    other.sh("""
        cat roots; ! echo 2 > roots; ! touch here
        echo x > common/f; mkdir common/d; test "$(stat -c %u:%g common/f)" = "$(id -u):$(id -g)"
        touch -d 2020-01-01 common/f; chmod 600 common/f; rm -r common/f common/d
    """)


def test_an_ordinary_user_may_not_let_others_in(users_place: Mounted) -> None:
    done = users_place.try_mount("-o", "allow_other")
    assert done.returncode == 2
    assert "/etc/fuse.conf" in done.stderr
    assert "user_allow_other" in done.stderr
