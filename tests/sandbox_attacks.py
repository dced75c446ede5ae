"""Attacks on the sandbox, a row each: what the code tries, and what must come of it.

`python -m tests.sandbox_attacks` runs them all and prints the table.
"""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lean_align.sandbox import Limits, SandboxResult, call_function, evaluate_arguments, run_script

SECRET = "the gold answer is 43"
FUNCTION, GOLD = "def f(x):\n    return 2 * x + 1", 43
QUICK = Limits(cpu_seconds=2, wall_seconds=10.0, memory_bytes=256 * 2**20)
WRITING = Limits(cpu_seconds=2, wall_seconds=10.0, file_bytes=65_536, files=16)


@dataclass(frozen=True)
class Attack:
    """Code, how it is run, the outcomes that are right, and a text that its output or message holds.

    In the code, @OUTSIDE@ is a folder that holds secret.txt, @PARENT@ the number of this process, @HOME@ its user's
    folder.  Should a wall be missing, no attack does harm: signals are number 0, forked processes end at once.
    """

    name: str
    code: str
    outcomes: str
    says: str = ""
    limits: Limits = QUICK
    arguments: bool = False


def _tries(*statements: str, before: str = "") -> str:
    """A script that tries each statement, and prints how it ended."""
    lines = ["import os, sys", before]
    for statement in statements:
        lines += ["try:", f"    {statement}", "    print('DONE')"]
        lines += ["except BaseException as error:", "    print(type(error).__name__, error)"]
    return "\n".join(lines)


def _refused(name: str, *statements: str, before: str = "", says: str = "Error", limits: Limits = QUICK) -> Attack:
    return Attack(name, _tries(*statements, before=before), "value", says, limits)


_RAW = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
column = ["x86_64", "aarch64"].index(os.uname().machine)
def raw(numbers, *arguments):
    result = libc.syscall(ctypes.c_long(numbers[column]), *[ctypes.c_long(argument) for argument in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""
_RAW_CALLS = {
    "clone": "(56, 220), 17, 0, 0, 0, 0",
    "clone of a thread": "(56, 220), 0x10f00, 0, 0, 0, 0",
    "clone3": "(435, 435), 0, 0",
    "execve": "(59, 221), 0, 0, 0",
    "execveat": "(322, 281), 0, 0, 0, 0, 0",
    "socket": "(41, 198), 2, 1, 0",
    "socketpair": "(53, 199), 1, 1, 0, 0",
    "ptrace of the parent": "(101, 117), 16, @PARENT@, 0, 0",
    "process_vm_readv": "(310, 270), @PARENT@, 0, 0, 0, 0, 0",
    "process_vm_writev": "(311, 271), @PARENT@, 0, 0, 0, 0, 0",
    "kill": "(62, 129), @PARENT@, 0",
    "tgkill": "(234, 131), @PARENT@, @PARENT@, 0",
    "tkill": "(200, 130), @PARENT@, 0",
    "rt_sigqueueinfo": "(129, 138), @PARENT@, 0, 0",
    "pidfd_open": "(434, 434), @PARENT@, 0",
    "pidfd_getfd": "(438, 438), 0, 0, 0",
    "prlimit64 of the parent": "(302, 261), @PARENT@, 0, 0, 0",
    "setpriority": "(141, 140), 0, @PARENT@, 5",
    "sched_setaffinity": "(203, 122), @PARENT@, 8, 0",
    "mount": "(165, 40), 0, 0, 0, 0, 0",
    "chroot": "(161, 51), 0",
    "unshare": "(272, 97), 0x10000000",
    "setns": "(308, 268), 0, 0",
    "bpf": "(321, 280), 0, 0, 0",
    "perf_event_open": "(298, 241), 0, 0, 0, 0, 0",
    "io_uring_setup": "(425, 425), 1, 0",
    "userfaultfd": "(323, 282), 0",
    "keyctl": "(250, 219), 0, 0",
    "memfd_create": "(319, 279), 0, 0",
    "shmget": "(29, 194), 0, 4096, 0o1600",
    "open_by_handle_at": "(304, 265), 0, 0, 0",
    "setxattr": "(188, 5), 0, 0, 0, 0, 0",
    "truncate": "(76, 45), 0, 0",
    "prctl, no death signal": "(157, 167), 1, 0, 0, 0, 0",
    "prctl, no seccomp": "(157, 167), 22, 0, 0, 0, 0",
    "seccomp": "(317, 277), 0, 0, 0",
    "landlock_restrict_self": "(446, 446), 0, 0",
    "setuid": "(105, 146), 0",
    "capset": "(126, 91), 0, 0",
    "reboot": "(169, 142), 0, 0, 0, 0",
    "init_module": "(175, 105), 0, 0, 0",
}

FILES = (
    _refused(
        "write outside: .., absolute, /tmp, home",
        "open('../out', 'w')",
        "open('@OUTSIDE@/out', 'w')",
        "open('/tmp/lean_align_out', 'w')",
        "open('@HOME@/lean_align_out', 'w')",
        "open('/dev/shm/lean_align_out', 'w')",
        limits=WRITING,
    ),
    _refused(
        "change what is outside: truncate, chmod, chown, utime, rename, remove",
        "os.truncate('@OUTSIDE@/secret.txt', 0)",
        "os.open('@OUTSIDE@/secret.txt', os.O_RDONLY | os.O_TRUNC)",
        "os.open('@OUTSIDE@/secret.txt', 3 | os.O_TRUNC)",
        "os.chmod('@OUTSIDE@/secret.txt', 0)",
        "os.chown('@OUTSIDE@/secret.txt', 1, 1)",
        "os.utime('@OUTSIDE@/secret.txt', (0, 0))",
        "os.rename('@OUTSIDE@/secret.txt', 'mine')",
        "os.remove('@OUTSIDE@/secret.txt')",
        limits=WRITING,
    ),
    _refused(
        "reach outside by link, folder, pipe or device",
        "os.symlink('@OUTSIDE@/secret.txt', 'link')",
        "os.link('@OUTSIDE@/secret.txt', 'link')",
        "os.mkdir('folder')",
        "os.mkfifo('fifo')",
        "os.mknod('disk', 0o60600, 0x800)",
        limits=WRITING,
    ),
    _refused("write inside, with file_bytes at 0", "open('inside', 'w')", "os.open('.', os.O_TMPFILE | os.O_RDWR)"),
    Attack("huge file inside", "open('big', 'wb').write(bytes(10**6))", "error|files", "", WRITING),
    Attack("huge file inside, sparse", "open('big', 'wb').truncate(10**12)", "error", "too large", WRITING),
    Attack(
        "many small files", "for i in range(10**6):\n    open(str(i), 'w').close()", "files", "killed after", WRITING
    ),
    Attack(
        "many files, together too large",
        "for i in range(15):\n    open(str(i), 'wb').write(bytes(20_000))\nwhile True: pass",
        "files",
        "killed after",
        WRITING,
    ),
    _refused(
        "read secrets: /etc/passwd, the parent's environment and memory, the gold, the project",
        "open('/etc/passwd').read()",
        "open('/proc/@PARENT@/environ').read()",
        "open('/proc/@PARENT@/mem').read(1)",
        "open('/proc/self/environ').read()",
        "open('@OUTSIDE@/secret.txt').read()",
        f"open({str(Path(__file__).resolve())!r}).read()",
        "os.listdir('/')",
        "os.listdir('@OUTSIDE@')",
        says="PermissionError",
    ),
    Attack("read the environment", "import os; print('variables:', dict(os.environ))", "value", "variables: {}"),
)
PROCESSES = (
    Attack(
        "fork bomb",
        "import os\nforks = 0\nfor _ in range(2000):\n    try:\n        forks += 1 if os.fork() else os._exit(0)\n"
        "    except OSError:\n        pass\nprint('forks:', forks)",
        "value",
        "forks: 0",
    ),
    Attack(
        "thread bomb",
        "import threading, time\nthreading.stack_size(32768)\nn = 0\nfor _ in range(2000):\n    try:\n"
        "        threading.Thread(target=time.sleep, args=(60,)).start(); n += 1\n    except RuntimeError:\n"
        "        pass\nprint('threads:', n)\nimport os; os._exit(0) if n else None",
        "value",
        "threads: 0",
    ),
    Attack(
        "daemon by double fork and setsid",
        "import os\nif not os.fork():\n    os.setsid()\n    if os.fork(): os._exit(0)\n    import time; time.sleep(60)",
        "error",
        "Operation not permitted",
    ),
    _refused(
        "run a shell",
        "os.execv('/bin/sh', ['sh', '-c', 'true'])",
        "os.posix_spawn('/bin/sh', ['sh', '-c', 'true'], {})",
        "import subprocess; subprocess.run('true', shell=True)",
        "assert os.system('touch @OUTSIDE@/out') == 0",
    ),
    _refused(
        "signals to others",
        "os.kill(@PARENT@, 0)",
        "os.kill(-1, 0)",
        "os.killpg(@PARENT@, 0)",
        "os.kill(1, 0)",
        "import signal; signal.pidfd_send_signal(os.pidfd_open(@PARENT@), 0)",
    ),
    _refused(
        "a signal to the parent by way of asynchronous input",
        "fcntl.fcntl(1, 10, 9)",
        "fcntl.fcntl(1, fcntl.F_SETOWN, @PARENT@)",
        "fcntl.fcntl(1, fcntl.F_SETFL, os.O_ASYNC)",
        before="import fcntl",
    ),
    _refused(
        "limits: raise its own, lower the parent's",
        "resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
        "resource.prlimit(@PARENT@, resource.RLIMIT_CPU, (1, 1))",
        "os.setpriority(os.PRIO_PROCESS, @PARENT@, 19)",
        "os.sched_setaffinity(@PARENT@, {0})",
        before="import resource",
    ),
)
NETWORK = (
    _refused(
        "sockets and names",
        "socket.socket(socket.AF_INET)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socketpair()",
        "socket.create_connection(('127.0.0.1', 22), 1)",
        "socket.getaddrinfo('example.org', 80)",
        before="import socket",
    ),
)
LIMITS = (
    Attack("endless loop", "while True: pass", "cpu", "processor time", Limits(cpu_seconds=1)),
    Attack(
        "endless loop that ignores signals",
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "while True: pass",
        "cpu",
        "processor time",
        Limits(cpu_seconds=1),
    ),
    Attack("sleep for ever", "import time; time.sleep(1e6)", "timeout", "", Limits(wall_seconds=0.5)),
    Attack(
        "sleep for ever with all outputs closed",
        "import os, time\nos.closerange(0, 32)\ntime.sleep(1e6)",
        "timeout",
        "",
        Limits(wall_seconds=0.5),
    ),
    Attack("memory at once", "bytearray(3 * 10**9)", "memory", "", QUICK),
    Attack("memory bit by bit", "kept = [bytearray(10**6) for _ in range(3000)]", "memory", "", QUICK),
    Attack("memory bit by bit, in the arguments", "[bytearray(10**6) for _ in range(3000)]", "memory", "", QUICK, True),
    Attack("endless standard output", "while True: print('x' * 10_000)", "output", "", QUICK),
    Attack(
        "endless standard error", "import sys\nwhile True: print('x' * 10_000, file=sys.stderr)", "output", "", QUICK
    ),
    Attack("huge value", "'x' * 10**7", "output", "", QUICK, True),
    Attack("an int of ten million digits", "1 << 33_219_281", "no value", "", QUICK, True),
    Attack("power of a power", "9**9**9", "cpu|memory|error", "", Limits(cpu_seconds=1), True),
    Attack("deep recursion", "def g(n): return g(n + 1)\ng(0)", "error", "RecursionError"),
    Attack(
        "deep recursion through C, limit lifted",
        "import sys\nsys.setrecursionlimit(10**9)\ndef g(_): return list(map(g, [0]))\ng(0)",
        "killed|memory|error",
    ),
    Attack(
        "a deeply nested value",
        "(lambda g, a: g(g, a, 0))(lambda g, a, n: [a] if n > 300 else g(g, [a], n + 1), 1)",
        "no value",
        "nested",
        QUICK,
        True,
    ),
)
RAW = (
    *(
        _refused(f"raw call: {name}", f"raw({call})", before=_RAW, says="not implemented" if "35, 435" in call else "")
        for name, call in _RAW_CALLS.items()
    ),
)
FOREIGN = (
    Attack(
        "raw call of the x32 range", "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)", "killed", "SIGSYS"
    ),
    Attack(
        "32-bit call by machine code",
        "import ctypes, mmap\ncode = mmap.mmap(-1, 4096, prot=7)\n"
        "code.write(bytes.fromhex('b814000000cd80c3'))\n"  # mov eax, 20; int 0x80; ret
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()",
        "killed",
        "SIG",
    ),
)
_FORGE = "import os\nfor d in range(3, 32):\n    try: os.write(d, {text})\n    except OSError: pass\nos._exit(0)"


def _forged(name: str, text: str, outcomes: str) -> Attack:
    """Write to every descriptor, the report's among them; `text` is the source of a bytes object."""
    return Attack(name, f"exec({_FORGE.format(text=text)!r})", outcomes, arguments=True)


def _argument(name: str, code: str, outcomes: str) -> Attack:
    return Attack(name, code, outcomes, arguments=True)


FORGERIES = (
    _argument("leave with success: sys.exit(0)", "__import__('sys').exit(0)", "error"),
    _argument("leave with success: os._exit(0)", "__import__('os')._exit(0)", "no value"),
    _argument("print what looks like success", "print('PASSED V((21,), {})') or 1", "value"),
    _argument(
        "patch ascii, repr, isinstance",
        "exec('import builtins as b\\nb.ascii = b.repr = lambda v: \"43\"') or 1",
        "value|no value",
    ),
    _argument(
        "patch ast.literal_eval and json",
        "exec('import ast, json\\nast.literal_eval = json.loads = print') or 1",
        "value",
    ),
    _argument(
        "patch the child's own functions",
        'exec(\'import __main__ as m\\nm.literal_text = lambda v, d=0: "{}" if type(v) is dict else "(43,)"\') or 1',
        "value",
    ),
    _argument("an object equal to everything", "type('T', (), {'__eq__': lambda s, o: True})()", "no value"),
    _argument(
        "an int whose == and repr lie",
        "type('T', (int,), {'__eq__': lambda s, o: True, '__repr__': lambda s: '43'})(1)",
        "no value",
    ),
    _argument(
        "an object whose __reduce__ runs code", "type('T', (), {'__reduce__': lambda s: (print, (43,))})()", "no value"
    ),
    _argument("a type whose name lies", "type('int', (), {})()", "no value"),
    _argument(
        "an exception whose text fails", "exec('class E(Exception):\\n def __str__(s): raise E\\nraise E')", "error"
    ),
    _argument("close the brackets and go on", "1), (43", "error"),
    _argument("close the brackets inside", "1) or arguments(43", "error"),
    _forged("forged: the expected output", 'b"V((43,), {})"', "value"),
    _forged("forged: success", 'b"VTrue"', "no value"),
    _forged("forged: no arguments", 'b"V43"', "no value"),
    _forged("forged: names that are no text", 'b"V((), {1: 2})"', "no value"),
    _forged("forged: code", "b\"V__import__('os').system('true')\"", "no value"),
    _forged("forged: nested too deep", 'b"V" + b"[" * 5000', "no value"),
    _forged("forged: a range of huge numbers", "b'V((range(0x' + b'f' * 20_000 + b'),), {})'", "no value"),
    _forged("forged: a complex number with a huge part", "b'V((' + b'1' * 4000 + b'+1j,), {})'", "no value"),
    _forged("forged: nested deeper than a value may be", "b'V((' + b'[' * 120 + b']' * 120 + b',), {})'", "no value"),
    _forged("forged: a chain of signs", 'b"V" + b"-" * 50_000 + b"1"', "no value"),
    _forged("forged: unhashable", 'b"V{[]: 1}"', "no value"),
    _forged("forged: two results", 'b"V((1,), {})V((21,), {})"', "no value"),
    _forged("forged: no letter of ours", 'b"\\xff\\x00"', "no value"),
    _argument("all descriptors closed", "__import__('os').closerange(0, 32)", "no value|error"),
)
ATTACKS = (*FILES, *PROCESSES, *NETWORK, *LIMITS, *RAW, *FORGERIES)
ATTACKS += FOREIGN if os.uname().machine == "x86_64" else ()


@dataclass(frozen=True)
class Happened:
    """What came of an attack, and what is wrong with it: nothing, if the sandbox holds."""

    result: SandboxResult
    wrong: tuple[str, ...]

    @property
    def words(self) -> str:
        """The outcome with the first line of what the code printed, or why it ended."""
        lines = (self.result.message or self.result.stdout).strip().splitlines()
        more = f" (and {len(lines) - 1} more)" if self.result.stdout and len(lines) > 1 else ""
        return (
            f"{self.result.outcome}: {(lines[-1] if self.result.message else lines[0])[:70]}{more}"
            if lines
            else (f"{self.result.outcome}: {self.result.value!r:.60}")
        )


@contextlib.contextmanager
def host(folder: Path) -> Iterator[Path]:
    """A folder that must not change, beside the one where the throw-away folders are made."""
    outside, throw_away = folder / "outside", folder / "throw_away"
    outside.mkdir()
    throw_away.mkdir()
    (outside / "secret.txt").write_text(SECRET)
    before, tempfile.tempdir = tempfile.tempdir, str(throw_away)
    try:
        yield outside
    finally:
        tempfile.tempdir = before


def filled(code: str, outside: Path) -> str:
    return (
        code.replace("@OUTSIDE@", str(outside))
        .replace("@PARENT@", str(os.getpid()))
        .replace("@HOME@", str(Path.home()))
    )


def run_attack(attack: Attack, outside: Path) -> Happened:
    """Run it, and compare what came of it, and the host, with what must be."""
    state = _state()
    code = filled(attack.code, outside)
    wrong = []
    if attack.arguments:
        result = evaluate_arguments(code, attack.limits)
        if result.outcome == "value":  # the second child has the last word
            answer = call_function(FUNCTION, "f", *result.value, attack.limits)
            wrong += ["it passed as right"] if answer.outcome == "value" and answer.value == GOLD else []
    else:
        result = run_script(code, attack.limits)
        wrong += ["a line says DONE"] * ("DONE" in result.stdout)
    if result.outcome not in attack.outcomes.split("|"):
        wrong.append(f"outcome {result.outcome}, expected {attack.outcomes}")
    if attack.says not in result.stdout + result.message:
        wrong.append(f"{attack.says!r} is missing")
    return Happened(result, (*wrong, *harm(outside), *(["this process changed"] if _state() != state else [])))


def harm(outside: Path) -> list[str]:
    """What an attack left on this machine."""
    found = []
    if [path.name for path in outside.iterdir()] != ["secret.txt"] or (outside / "secret.txt").read_text() != SECRET:
        found.append("the folder outside has changed")
    if list((outside.parent / "throw_away").iterdir()):
        found.append("a throw-away folder is left")
    survivors = processes_in(outside.parent)
    return found + ([f"processes {survivors} are left"] if survivors else [])


def processes_in(folder: Path) -> list[int]:
    """Processes whose working directory is, or was, below the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "cwd").startswith(str(folder)):
                found.append(int(entry.name))
    return found


def _state() -> tuple[object, ...]:
    """What an attack on this process would change."""
    limits = [resource.getrlimit(number) for number in range(resource.RLIMIT_NICE)]
    descriptors = len(os.listdir("/proc/self/fd"))
    return limits, descriptors, os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)


def main() -> None:
    """Print the table."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder, host(Path(folder)) as outside:
        for attack in ATTACKS:
            happened = run_attack(attack, outside)
            failed += bool(happened.wrong)
            print(f"{attack.name:82s} {happened.words}" + "".join(f"  WRONG: {text}" for text in happened.wrong))
    print(f"{len(ATTACKS)} attacks, {failed} of them came to something")


if __name__ == "__main__":
    main()
