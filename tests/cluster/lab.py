"""Machines for a cluster test, made of Linux namespaces: each has processes, network, /tmp and home
of its own, and an sshd. What runs in one, `ray stop` too, sees no process outside."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "unshare", "nsenter", "setpriv", "make")
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NETWORK = "10.77.0"
# an init that reaps; killed with the process that started it
INIT = "trap exit TERM; while :; do sleep 1 & wait; done"
UNSHARE = [
    *("unshare", "--net", "--pid", "--mount", "--uts"),
    *("--fork", "--mount-proc", "--kill-child"),
]
PREPARE = """
set -e
mount --bind {lab} /mnt
{hold}
mount -t tmpfs none /tmp
{show}
mount -t tmpfs none /run
mkdir /run/sshd
mount --bind /mnt/{name}/passwd /etc/passwd
mount --bind /mnt/hosts /etc/hosts
hostname {name}
ip link set lo up
ip link set to-{name} name eth0
ip address add {address}/24 dev eth0
ip link set eth0 up
ip route add default via {network}.254
"""
SSHD = """
HostKey /mnt/{name}/host_key
AuthorizedKeysFile /mnt/laptop/home/.ssh/id_ed25519.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
"""


def code_below_tmp(name: str) -> dict[str, str]:
    """Return commands that ``hold`` and ``show`` this code where a machine's own /tmp hides it."""
    found = [path for path in (ROOT, Path(sys.prefix)) if path.is_relative_to("/tmp")]
    if len(found) == 2 and found[1].is_relative_to(ROOT):
        found.pop()
    hold, show = [], []
    for number, path in enumerate(found):
        held = f"/mnt/{name}/code{number}"
        hold += [f"mkdir {held}", f"mount --bind {path} {held}"]
        show += [f"mkdir -p {path}", f"mount --bind {held} {path}"]
    return {"hold": "\n".join(hold), "show": "\n".join(show)}


def missing() -> str | None:
    """Say why there can be no such machines here, or None."""
    if os.geteuid() != 0:
        return "needs root for namespaces"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=SEARCH) is None]
    if absent:
        return f"needs {', '.join(absent)}: apt-get install openssh-server rsync iproute2 make"
    tried = subprocess.run(
        [*UNSHARE, "ip", "link", "add", "probe", "type", "veth"], capture_output=True
    )
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stderr.decode().strip()}"


class Machine:
    """A process tree, a network and a file system of its own."""

    def __init__(self, lab: Path, name: str, number: int) -> None:
        self.name, self.address = name, f"{NETWORK}.{number}"
        self.home = lab / name / "home"
        self.home.mkdir(parents=True)
        entries = Path("/etc/passwd").read_text().splitlines()
        others = [entry for entry in entries if not entry.startswith("root:")]
        root = f"root:x:0:0:root:/mnt/{name}/home:/bin/bash"
        (lab / name / "passwd").write_text("\n".join([root, *others]) + "\n")
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *UNSHARE, "bash", "-c", INIT],
            stdin=subprocess.DEVNULL,
        )
        self.pid = self._first_child()

    def _first_child(self) -> int:
        """Return the namespace's first process, as seen from outside."""
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        for _ in range(100):
            if text := children.read_text().split():
                return int(text[0])
            time.sleep(0.1)
        raise TimeoutError(f"{self.name} did not start")

    def command(self, *words: str, **variables: str) -> list[str]:
        """Return a command that runs inside, with nothing of this process's environment."""
        home = f"/mnt/{self.name}/home"
        path = f"{Path(sys.prefix) / 'bin'}:{SEARCH}" if self.name == "laptop" else SEARCH
        settings = {"HOME": home, "PATH": path, "LANG": "C.UTF-8", "COLUMNS": "120"} | variables
        inside = ["nsenter", f"--target={self.pid}", "--all", f"--wd={ROOT}"]
        return [*inside, "env", "-i", *(f"{k}={v}" for k, v in settings.items()), *words]

    def run(
        self, *words: str, timeout: float = 60, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside; its output, both streams, is text."""
        done = subprocess.run(
            self.command(*words, **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}"
        return done

    def processes(self, pattern: str) -> list[str]:
        """Return the command lines inside that match."""
        return self.run("pgrep", "-fa", pattern, check=False).stdout.splitlines()

    def end(self) -> None:
        """Kill everything inside."""
        self._holder.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._holder.wait(timeout=10)


class Lab:
    """A laptop and machines with sshd, on one network; /mnt is the storage that all of them see."""

    def __init__(self, place: Path, *names: str) -> None:
        self.place = place
        self.machines: list[Machine] = []
        try:
            for number, name in enumerate(("laptop", *names), start=1):
                self.machines.append(Machine(place, name, number))
            self._connect()
            self._laptop()
            for machine in self.machines[1:]:
                self._serve(machine)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        for machine in self.machines:
            machine.end()

    def _connect(self) -> None:
        lines = [f"{machine.address} {machine.name}" for machine in self.machines]
        (self.place / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines]) + "\n")
        laptop = self.machines[0]
        laptop.run("ip", "link", "add", "switch", "type", "bridge")
        laptop.run("ip", "link", "set", "switch", "up")
        for machine in self.machines:
            near, far = f"at-{machine.name}", f"to-{machine.name}"
            laptop.run("ip", "link", "add", near, "type", "veth", "peer", "name", far)
            laptop.run("ip", "link", "set", near, "master", "switch", "up")
            if machine is not laptop:
                self._hand_over(far, machine)
            script = PREPARE.format(
                lab=self.place,
                name=machine.name,
                address=machine.address,
                network=NETWORK,
                **code_below_tmp(machine.name),
            )
            machine.run("bash", "-c", script)

    def _hand_over(self, link: str, machine: Machine) -> None:
        laptop = self.machines[0]
        inside = ["nsenter", f"--net=/proc/{laptop.pid}/ns/net"]
        subprocess.run([*inside, "ip", "link", "set", link, "netns", str(machine.pid)], check=True)

    def _laptop(self) -> None:
        ssh = self.machines[0].home / ".ssh"
        ssh.mkdir()
        make_key(ssh / "id_ed25519")
        self.machines[0].run("ray", "get-auth-token", "--generate")

    def _serve(self, machine: Machine) -> None:
        folder = self.place / machine.name
        make_key(folder / "host_key")
        (folder / "sshd_config").write_text(SSHD.format(name=machine.name))
        installed(machine.home / "raysweep-checkout")
        machine.run("/usr/sbin/sshd", "-f", f"/mnt/{machine.name}/sshd_config")


def make_key(place: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place)], check=True)


def installed(checkout: Path) -> None:
    """Make in a checkout what `make env` makes, with the packages of this process's environment.

    Nothing is downloaded; raysweep itself comes from the checkout, as after ``pip install -e``.
    """
    here, inside = Path(sys.prefix), Path("/mnt", *checkout.parts[-3:])
    venv, site = checkout / ".venv", Path(sysconfig.get_path("purelib"))
    packages = venv / site.relative_to(here)
    packages.mkdir(parents=True)
    lines = [str(inside), f"import site; site.addsitedir({str(site)!r})"]
    (packages / "packages.pth").write_text("\n".join(lines))
    shutil.copy(here / "pyvenv.cfg", venv)
    (venv / "bin").mkdir()
    for tool in (here / "bin").iterdir():
        copy = venv / "bin" / tool.name
        if tool.is_symlink():
            copy.symlink_to(tool.resolve())
        elif tool.is_file() and tool.read_bytes()[:2] == b"#!":
            text = tool.read_text().partition("\n")[2]
            copy.write_text(f"#!{inside}/.venv/bin/python\n{text}")
            copy.chmod(0o755)
    (venv / "installed").touch()
