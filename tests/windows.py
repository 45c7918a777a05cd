"""A Linux that has only what Windows has: `python windows.py '[[VERB, ...], ...]'` imports every module, runs the verbs.

Modules and functions of POSIX are gone. No links can be made, a folder cannot be opened, a file that is open here or mapped cannot be replaced
or removed, a file opened without O_BINARY gets two bytes per line break, and only a writer can flush a file. What the
real one does beyond this, only a run on it shows (.github/workflows/test.yml).
"""

import ctypes
import importlib.util
import json
import os
import pkgutil
import signal
import sys
import types
import warnings

MODULES = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog", "readline", "_posixsubprocess")
NAMES = {
    os: "sysconf sched_getaffinity fork forkpty getuid geteuid getgid getpgid setsid killpg uname mkfifo wait3 wait4 "
    "register_at_fork nice chown fchown getloadavg O_DIRECTORY O_NOFOLLOW posix_fadvise",
    signal: "SIGHUP SIGALRM SIGUSR1 SIGUSR2 SIGKILL SIGQUIT SIGPIPE SIGCHLD setitimer getitimer alarm pthread_kill "
    "pthread_sigmask sigwait ITIMER_REAL siginterrupt",
}
OTHERS = (
    "torch.utils.benchmark",
    "torch.distributed.checkpoint",
    "openai",
    "aiohttp",
    "transformers.models.clip.modeling_clip",
)
BINARY = 1 << 30


def held(path):
    """Whether this process has the file, or one in the folder, open or mapped."""
    real = os.path.realpath(path)
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # the listing's own
            continue
    with open("/proc/self/maps", encoding="utf-8") as maps:
        names += [line.split(maxsplit=5)[-1].rstrip("\n") for line in maps]
    return any(name == real or name.startswith(f"{real}/") for name in names)


def become_windows():
    """Take from this process what Windows lacks. Other people's packages must be imported before."""
    import fcntl

    for module in MODULES:
        sys.modules[module] = None  # an import of it now fails
    for owner, names in NAMES.items():
        for name in names.split():
            if hasattr(owner, name):
                delattr(owner, name)
    os.O_BINARY, as_text = BINARY, set()
    memory = types.SimpleNamespace(GlobalMemoryStatusEx=lambda status: status._obj.__setitem__(1, 8 << 30))
    ctypes.windll = types.SimpleNamespace(kernel32=memory)
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace", "rename", "unlink")}

    def open_file(path, flags, mode=0o777, **more):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        file = real["open"](path, flags & ~BINARY, mode, **more)
        (as_text.discard if flags & BINARY else as_text.add)(file)
        return file

    def write(file, data):
        written = bytes(data).replace(b"\n", b"\r\n") if file in as_text else data
        return len(data) if real["write"](file, written) == len(written) else 0

    def fsync(file):
        number = file if isinstance(file, int) else file.fileno()
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        real["fsync"](number)

    def unless_held(name, count):
        def work(*paths, **more):
            for path in paths[:count]:
                if not more.get("dir_fd") and held(path):
                    raise PermissionError(13, "The process cannot access the file because it is in use", str(path))
            return real[name](*paths, **more)

        return work

    def symlink(*_, **more):
        raise OSError(22, "A required privilege is not held by the client")

    os.open, os.write, os.fsync, os.symlink = open_file, write, fsync, symlink
    os.replace, os.rename = unless_held("replace", 2), unless_held("rename", 2)
    os.unlink = os.remove = unless_held("unlink", 1)


def import_all():
    """Import every module of the package; returns their names."""
    import minillava

    found = [one.name for one in pkgutil.walk_packages(minillava.__path__, "minillava.")]
    site = ["site_extension"] * (importlib.util.find_spec("sphinx") is None)  # Sphinx alone loads it
    names = [name for name in found if name.rpartition(".")[2] not in ("__main__", *site)]
    for name in names:
        importlib.import_module(name)
    return names


if __name__ == "__main__":
    for name in OTHERS:
        importlib.import_module(name)
    for name in import_all():  # so that other people's packages are all there
        del sys.modules[name]
    del sys.modules["minillava"]
    become_windows()
    warnings.filterwarnings("error", category=EncodingWarning, module="minillava")  # the locale's is not UTF-8 there
    names = import_all()
    from minillava import cli

    for command in json.loads(sys.argv[1]):
        print(*command, flush=True)
        assert cli.main(command) == 0, command
    print(f"{len(names)} modules, {len(json.loads(sys.argv[1]))} commands")
