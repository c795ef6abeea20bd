"""A SLURM cluster on this machine: two nodes, which are two slurmds.

Its own folder, ports and key; every daemon is stopped by its pid. Debian's packages are
installed where missing: root on Debian or Ubuntu is needed.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
TaskProlog={folder}/task_prolog.sh
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
KillWait=10
MinJobAge=300
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=2 State=UNKNOWN
PartitionName=cpu Nodes=n[0-1] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
# Before every task: its step, on how many CPUs it may run and how many srun asked for.
TASK_PROLOG = """#!/bin/sh
echo "$SLURM_JOB_ID.$SLURM_STEP_ID $(nproc) ${{SLURM_CPUS_PER_TASK:-0}}" >>{folder}/cpus
"""

# Since 22.05, srun ignores this variable of the job but hands it on to the tasks. Without
# it, tasks see how many CPUs srun itself was asked for.
SRUN = """#!/bin/sh
unset SLURM_CPUS_PER_TASK
exec {srun} "$@"
"""


def write_program(file, text):
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def install():
    """Skips, saying why, where the packages cannot be had."""
    paths = f"{os.environ['PATH']}:/usr/sbin"
    if all(shutil.which(d, path=paths) for d in DAEMONS):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip(
            "slurm-wlm and munge are not installed, and only root's apt-get can"
        )
    for command in ("update", "install -y slurm-wlm munge"):
        done = subprocess.run(
            ["apt-get", "-q", *command.split()],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"apt-get {command}: {done.stderr.strip().splitlines()[-1]}")


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def wait_until(what, fn, seconds=120):
    """The first true value of `fn()`."""
    for _ in range(int(seconds / 0.2)):
        if value := fn():
            return value
        time.sleep(0.2)
    raise AssertionError(f"never came: {what}")


class Slurm:
    """Commands of the cluster."""

    def __init__(self, folder, env):
        self.folder, self.env = folder, env

    def __call__(self, *command, **how):
        return subprocess.run(
            command, env=self.env, check=True, capture_output=True, text=True, **how
        ).stdout

    def jobs(self, job):
        """The states of a job's parts, as `squeue` has them: empty once all are over."""
        said = self("squeue", "-h", "-o", "%T %r", "-j", str(job), "--states=all")
        return [line.split()[0] for line in said.splitlines()]

    def cpus(self, job):
        """Return, for each task of a job, how many CPUs it may use and srun asked for."""
        seen = (self.folder / "cpus").read_text().splitlines()
        return [(int(n), int(c)) for s, n, c in map(str.split, seen) if s == f"{job}.0"]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    install()
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    (folder / "state").mkdir()
    for node in ("n0", "n1"):
        (folder / f"spool-{node}").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host, ports = socket.gethostname(), free_ports(4)
    (folder / "slurm.conf").write_text(
        CONFIG.format(host=host, ports=ports, folder=folder)
    )
    write_program(folder / "task_prolog.sh", TASK_PROLOG.format(folder=folder))
    srun = SRUN.format(srun=shutil.which("srun"))
    write_program(folder / "bin" / "srun", srun)
    env = os.environ | {
        "SLURM_CONF": f"{folder}/slurm.conf",
        "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin",
    }
    cluster = Slurm(folder, env)
    munge = [f"--{n}-file={folder}/munge.{n}" for n in ("key", "pid", "log", "seed")]
    try:
        cluster("munged", "--force", f"--socket={folder}/munge.socket", *munge)
        cluster("slurmctld", "-c", "-f", f"{folder}/slurm.conf")
        for node in ("n0", "n1"):
            cluster("slurmd", "-N", node, "-f", f"{folder}/slurm.conf")
        wait_until(
            "two idle nodes", lambda: "idle 2" in cluster("sinfo", "-h", "-o", "%t %D")
        )
        yield cluster
        cluster("scancel", "--signal=KILL", "--full", "--user=root")
        cluster("scancel", "--user=root")
        wait_until("no job left", lambda: not cluster("squeue", "-h"))
    finally:
        for file in ("slurmd-n0", "slurmd-n1", "slurmctld", "munge"):
            stop(folder / f"{file}.pid")


def stop(pid_file: Path):
    """Ends the daemon of a pid file, and waits for that."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
