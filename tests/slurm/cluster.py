"""A real SLURM on this machine: one node of two cores and two GPUs that don't exist, in a folder of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "setpriv")
DAEMON_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
GresTypes=gpu
KillWait=5
MinJobAge=300
MaxArraySize={array}
MaxJobCount={jobs}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 Port={node} CPUs=2 RealMemory=4000 Gres=gpu:2
PartitionName=low Nodes=localhost Default=YES PriorityTier=1 GraceTime=40 State=UP
PartitionName=high Nodes=localhost PriorityTier=10 PreemptMode=OFF State=UP
"""


def missing() -> str | None:
    """Why there can be no SLURM here; ``None`` where there can."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=DAEMON_PATH) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install --no-install-recommends slurm-wlm munge"
    if find_spec("submitit") is None:
        return "no submitit, of the extra slurm"
    return None if os.geteuid() == 0 else "the daemons of SLURM need root"


class Cluster:
    """Its daemons, from :meth:`start` to :meth:`stop`, and what a test asks them. ``folder`` holds all their files."""

    def __init__(self, folder: Path, arrays: int = 1001, jobs: int = 10000) -> None:
        self.folder, self.limits = folder, {"array": arrays, "jobs": jobs}
        self._daemons: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's commands need to find it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons and wait until the node takes jobs."""
        self._configure()
        munge = self.folder / "munge"
        self._daemon(
            *("munged", "--foreground", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key"),
            *(f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
        )
        wait(lambda: (munge / "socket").exists(), 10, "munged")
        self._daemon("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        self._daemon("slurmd", "-D", "-N", "localhost", "-f", str(self.folder / "slurm.conf"))
        wait(lambda: self.ask("sinfo", "-h", "-o", "%T").split()[:1] == ["idle"], 30, "SLURM's node")

    def stop(self) -> None:
        """End every job, then every daemon; nothing is left running."""
        self.clear()
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)

    def clear(self) -> None:
        """End every job."""
        if self.jobs():
            self.ask("scancel", *{job.partition("_")[0] for job in self.jobs()})
            wait(lambda: not self.jobs(), 60, "the end of the jobs")

    def ask(self, *command: str) -> str:
        """What one of SLURM's commands prints; nothing where it fails."""
        return subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True).stdout

    def jobs(self) -> dict[str, str]:
        """The state of each job, by its id, that waits or runs, such as ``{"12_0": "RUNNING"}``."""
        return dict(line.split() for line in self.ask("squeue", "-h", "-r", "-o", "%i %T").splitlines())

    def _configure(self) -> None:
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(parents=True, mode=0o700)
        key = self.folder / "munge/key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        for number in (0, 1):  # /dev/null under other names: enough for SLURM to count and to hand out
            os.mknod(self.folder / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        ports = dict(zip(("controller", "node"), free_ports(2), strict=True))
        text = CONFIGURATION.format(host=socket.gethostname(), folder=self.folder, **ports, **self.limits)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(f"NodeName=localhost Name=gpu File={self.folder}/gpu[0-1]\n")

    def _daemon(self, *command: str) -> None:
        """Start a daemon in the foreground, which ends with this process; its words go to a file beside its log."""
        with (self.folder / f"{command[0]}.out").open("wb") as output:
            program = shutil.which(command[0], path=DAEMON_PATH)
            assert program is not None
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", program, *command[1:]],
                env=os.environ | self.environment | {"PATH": DAEMON_PATH},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._daemons.append(process)


@contextmanager
def running(folder: Path, **limits: int) -> Iterator[Cluster]:
    """A cluster while the block runs."""
    cluster = Cluster(folder, **limits)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until the condition holds. Raises TimeoutError that names what did not come."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {seconds} s")
        time.sleep(0.1)
