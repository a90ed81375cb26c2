"""Ceph on one machine: a monitor, one disk daemon and an S3 gateway, as three processes in a folder."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.storage.servers import Server, free_port, process, wait_for

_CONFIG = """\
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{monitor}]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = true
run dir = {home}/run
log file = {home}/log/$name.log
admin socket = {home}/run/$name.asok
pid file = {home}/run/$name.pid
keyring = {home}/keyring
mon data = {home}/monitor
mon data avail crit = 1
mon data avail warn = 2
mon allow pool size one = true
mon max pg per osd = 2000
osd data = {home}/disk
osd objectstore = bluestore
osd memory target = 939524096
bluestore block size = 4294967296
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw enable usage log = false
rgw enable ops log = false
rgw gc max objs = 8
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = tests-key=MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=
"""
KMS_KEY, GUEST = "tests-key", "penstock-review"


@contextmanager
def ceph(home: Path) -> Iterator[Server]:
    """Start a new cluster with a gateway and two users, the second without rights; everything ends with the block."""
    if missing := [tool for tool in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph") if shutil.which(tool) is None]:
        raise AssertionError(f"the tests need {', '.join(missing)}; run `apt-get install radosgw ceph-mon ceph-osd`")
    for folder in ("monitor", "disk", "run", "log"):
        (home / folder).mkdir(parents=True)
    fsid, monitor, port = str(uuid.uuid4()), free_port(), free_port()
    config = home / "ceph.conf"
    config.write_text(_CONFIG.format(fsid=fsid, monitor=monitor, home=home, port=port))
    environment = {"CEPH_CONF": str(config)}

    def run(*command: str) -> str:
        done = subprocess.run(command, env={**os.environ, **environment}, cwd=home, capture_output=True, timeout=600, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-1000:]}"
        return done.stdout.decode()

    run("ceph-authtool", "--create-keyring", "keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    run("ceph-authtool", "keyring", "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *")
    run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{monitor}]", "monmap")
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "keyring")
    with ExitStack() as stack:
        stack.enter_context(process(["ceph-mon", "-f", "-i", "a"], monitor, home / "log" / "mon.out", environment=environment))
        disk = str(uuid.uuid4())
        # A client that asks the monitor too early sends its question without the cluster's number and is refused, and so is a
        # disk daemon, which then ends: on a busy machine both take more than one try.
        wait_for(lambda: _ceph(environment, "osd", "new", disk) is not None, 60, f"the monitor did not answer; see {home}/log")
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        for _ in range(10):
            daemon = stack.enter_context(process(["ceph-osd", "-f", "-i", "0"], monitor, home / "log" / "osd.out", environment=environment))
            wait_for(lambda: _ended(daemon) or _disks(environment) == 1, 120, f"the disk daemon did not come up; see {home}/log")  # noqa: B023
            if not _ended(daemon):
                break
        gateway = stack.enter_context(
            process(["radosgw", "-f", "-n", "client.rgw.a"], port, home / "log" / "rgw.out", environment=environment, seconds=120)
        )

        def server_of(user: str) -> Server:
            made = json.loads(run("radosgw-admin", "user", "create", f"--uid={user}", f"--display-name={user}"))
            return Server(f"http://127.0.0.1:{port}", made["keys"][0]["access_key"], made["keys"][0]["secret_key"], gateway)

        yield replace(server_of("tests"), guest=server_of(GUEST))


def _disks(environment: dict[str, str]) -> int:
    """How many disk daemons are up; none while the monitor does not answer."""
    answer = _ceph(environment, "osd", "stat", "-f", "json")
    return json.loads(answer)["num_up_osds"] if answer else 0


def _ceph(environment: dict[str, str], *command: str) -> bytes | None:
    """Ask the monitor; None when it refuses."""
    whole = ["ceph", "--connect-timeout", "5", *command]
    done = subprocess.run(whole, env={**os.environ, **environment}, capture_output=True, timeout=300, check=False)
    return done.stdout if done.returncode == 0 else None


def _ended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
