"""The sandbox holds against every attack of the table, and each wall is what stops its attack."""

from __future__ import annotations

import ast
import errno
import json
import math
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lean_align import sandbox
from lean_align.sandbox import Limits, SandboxError, call_function, calls, evaluate_arguments, run_script, support
from lean_align.sandbox.child import NoLiteral, literal_text
from lean_align.sandbox.landlock import handled_rights
from lean_align.sandbox.literals import parse_literal
from lean_align.sandbox.seccomp import filter_program
from lean_align.sandbox.system_calls import ARCHITECTURES, AUDIT_ARCH, allowed_calls, checked_calls
from tests.sandbox_attacks import ATTACKS, GOLD, SECRET, Attack, filled, harm, host, processes_in, run_attack

ROOT = Path(__file__).parent.parent
walled = pytest.mark.skipif(not sandbox.sandbox_support().available, reason="the kernel lacks what the walls need")
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000


@pytest.fixture
def outside(tmp_path):
    with host(tmp_path) as folder:
        yield folder


# --- the table


@walled
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_comes_to_nothing(attack, outside):
    assert run_attack(attack, outside).wrong == ()


def test_every_attack_has_a_name_of_its_own():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 90


@walled
@pytest.mark.parametrize(
    "attack",
    [
        Attack("prints DONE", "print('DONE')", "value"),
        Attack("another outcome", "1 / 0", "value"),
        Attack("another text", "print('no')", "value", "yes"),
        Attack("is right", f"{GOLD // 2}", "value", arguments=True),
        Attack("is right by evaluation", "10 + 11", "value", arguments=True),
    ],
    ids=lambda attack: attack.name,
)
def test_the_check_of_an_attack_sees_one_that_comes_to_something(attack, outside):
    assert len(run_attack(attack, outside).wrong) == 1


@walled
def test_the_check_of_the_host_sees_harm(outside):
    (outside / "new").touch()
    (outside.parent / "throw_away" / "left").mkdir()
    with subprocess.Popen(["sleep", "60"], cwd=outside) as left:
        found = harm(outside)
        left.kill()
    assert len(found) == 3


# --- each wall left out: the attack it stops then succeeds


@walled
@pytest.mark.parametrize(
    ("wall", "code"),
    [
        ("files", "print('DONE' if 'gold' in open('@OUTSIDE@/secret.txt').read() else '')"),
        ("files", "open('@OUTSIDE@/secret.txt', 'r+').close(); print('DONE')"),
        ("network", "import socket; socket.socket().connect(('127.0.0.1', @PORT@)); print('DONE')"),
        ("processes", "import os\nif os.fork() == 0: os._exit(7)\nprint('DONE' if os.wait()[1] >> 8 == 7 else '')"),
        ("signals", "import os; os.kill(@PARENT@, 0); print('DONE')"),
    ],
)
def test_the_wall_is_what_stops_it(wall, code, outside):
    limits = Limits(file_bytes=1000)
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = filled(code, outside).replace("@PORT@", str(server.getsockname()[1]))
        without = calls._script(code, limits, left_out=frozenset({wall}))
        assert (without.outcome, without.stdout) == ("value", "DONE\n"), without
        for others in (frozenset(), frozenset({"files", "network", "processes", "signals"}) - {wall}):
            stopped = calls._script(code, limits, left_out=others)
            assert (stopped.outcome, stopped.stdout) == ("error", ""), stopped
            assert "PermissionError" in stopped.message
    assert (outside / "secret.txt").read_text() == SECRET


@walled
def test_a_process_in_a_session_of_its_own_would_survive_but_for_the_wall(outside):
    code = "import os, time\nif os.fork() == 0:\n    os.setsid(); os.closerange(0, 32); time.sleep(30)\ntime.sleep(0.2)"
    calls._script(code, Limits())
    assert not list(processes_in(outside.parent))
    calls._script(code, Limits(), left_out=frozenset({"processes"}))
    survivors = list(processes_in(outside.parent))
    assert len(survivors) == 1
    os.kill(survivors[0], signal.SIGKILL)


@walled
@pytest.mark.parametrize(
    ("code", "limits", "wider", "outcome"),
    [
        ("bytearray(200 * 10**6)", Limits(memory_bytes=128 * 2**20), Limits(), "memory"),
        ("print('x' * 1000)", Limits(output_bytes=1000), Limits(output_bytes=1001), "output"),
        (
            "with open('a', 'w') as file: file.write('x' * 1001)",
            Limits(file_bytes=1000),
            Limits(file_bytes=1001),
            "error",
        ),
        ("import time; time.sleep(0.4)", Limits(wall_seconds=0.2), Limits(wall_seconds=20.0), "timeout"),
        ("[open(__import__('os').__file__) for _ in range(14)]", Limits(open_files=16), Limits(open_files=32), "error"),
    ],
)
def test_a_limit_is_what_stops_it(code, limits, wider, outcome):
    assert run_script(code, limits).outcome == outcome
    assert run_script(code, wider).outcome == "value"


@walled
def test_the_child_has_no_privileges_and_dies_with_its_parent(tmp_path):
    code = "from lean_align.sandbox import *; run_script('import time; time.sleep(60)', Limits(wall_seconds=60.0))"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment) as parent:
        (child,) = _until(lambda: processes_in(tmp_path))
        state = _until(lambda: _walls_of(child))
        parent.kill()
    assert state["CapEff"] == state["CapPrm"] == state["CapInh"] == "0000000000000000"
    assert state["CapBnd"] == "0000000000000000" or os.getuid()
    assert state["NoNewPrivs"] == "1"
    assert _until(lambda: not processes_in(tmp_path))


def _walls_of(pid) -> dict[str, str]:
    """/proc/PID/status, once the filter, the last wall, is up."""
    rows = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return rows if rows["Seccomp"] == "2" else {}


@walled
def test_the_peak_of_memory_is_the_child_s_own():
    """Told where it is above the peak of the process that asks, which itself begins with that of these tests."""
    code = (
        "import resource\nfrom lean_align.sandbox import *\n"
        "for n in 1, 3: print(run_script(f'bytearray({n}00_000_000)').peak_rss_bytes)\n"
        "print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *peaks, own = done.stdout.split()
    for expected, peak in zip((100e6, 300e6), peaks):
        if peak == "None":
            assert int(own) > expected
        else:
            assert expected < int(peak) < expected + 100e6


def _until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


# --- the three questions


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ((), {})),
        ("[1, 1, 3], 'x'  # why", (([1, 1, 3], "x"), {})),
        (
            "-1, +2.5, 1-2j, b'\\x00', None, key={'a': (1,), 2: {3}}",
            ((-1, 2.5, 1 - 2j, b"\0", None), {"key": {"a": (1,), 2: {3}}}),
        ),
        ("set(), {}, range(3)", ((set(), {}, range(3)), {})),
    ],
)
def test_plain_literals_need_no_child(text, value):
    result = evaluate_arguments(text)
    assert (result.outcome, result.value, result.returncode) == ("value", value, None)


@walled
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[0] * 3, *'ab', **{'k': 1}", (([0, 0, 0], "a", "b"), {"k": 1})),
        ("sorted({3, 1}), (lambda: 1)()", (([1, 3], 1), {})),
        ("float('inf'), -float('inf')", ((math.inf, -math.inf), {})),
        ("-(10 ** 4200)", ((-(10**4200),), {})),
        ("'\\ud800' + 'é\\n\\'\"'", (("\ud800é\n'\"",), {})),
        ("3 * LIMIT", ((15,), {})),
    ],
)
def test_other_arguments_are_evaluated(text, value):
    result = evaluate_arguments(text, context="LIMIT = 5")
    assert (result.outcome, result.value, result.returncode) == ("value", value, 0)


@pytest.mark.parametrize(
    "text", ["1, ", "1 2", "1)", ")(", "a=1, 2", "\x00", "\ud800", "(" * 500, "-" * 50_000, "x" * 10**6]
)
def test_a_text_that_is_no_arguments_is_an_error_without_a_child(text):
    result = evaluate_arguments(text)
    assert (result.outcome, result.returncode) == (("value", None) if text == "1, " else ("error", None))


@walled
@pytest.mark.parametrize(
    "text", ["lambda: 1", "object()", "frozenset()", "iter([])", "[print]", "...", "1 << 14_000", "range(10**19)"]
)
def test_arguments_that_are_no_literals_have_no_value(text):
    assert evaluate_arguments(text).outcome == "no value"


@walled
def test_a_function_gets_its_arguments_and_returns_its_value():
    source = "import math\nK = 2\ndef f(a, *, b):\n    print('hello')\n    a.append(K)\n    return a, b, math.nan"
    result = call_function(source, "f", ([1],), {"b": {"x": -math.inf}})
    assert result.outcome == "value"
    assert result.value[:2] == ([1, 2], {"x": -math.inf})
    assert math.isnan(result.value[2])
    assert result.stdout == "hello\n"
    assert result.cpu_seconds > 0
    assert result.wall_seconds > 0


@walled
@pytest.mark.parametrize(
    ("source", "outcome", "message"),
    [
        ("def f(): return 1 / 0", "error", "ZeroDivisionError: division by zero"),
        ("def f(: pass", "error", "SyntaxError: invalid syntax (<function>, line 1)"),
        ("x = 1", "error", "KeyError: 'f'"),
        ("def f(): return f", "no value", "a value of type function cannot come back"),
        ("def f():\n a = []\n a.append(a)\n return a", "no value", "a value nested more than 100 deep cannot"),
        ("def f(): return bytearray(3 * 10**9)", "memory", "MemoryError"),
    ],
)
def test_a_function_that_returns_nothing_says_why(source, outcome, message):
    result = call_function(source, "f", (), {})
    assert (result.outcome, result.value) == (outcome, None)
    assert result.message.startswith(message)


def test_arguments_of_a_function_must_be_literals():
    with pytest.raises(SandboxError, match="type object among the arguments of f"):
        call_function("def f(x): pass", "f", (object(),), {})


@walled
def test_the_order_of_a_set_of_strings_is_the_same_in_every_child():
    source = "def f(words): return list(set(words))"
    orders = {tuple(call_function(source, "f", (list("abcdefgh"),), {}).value) for _ in range(3)}
    assert len(orders) == 1


@walled
def test_a_script_reads_prints_and_ends():
    result = run_script("import sys\nprint(sys.stdin.read()[::-1], end='')", stdin="é" * 50 + "a\n")
    assert (result.outcome, result.value, result.returncode) == ("value", "\na" + "é" * 50, 0)
    failed = run_script("print('so far')\nraise SystemExit(3)")
    assert (failed.outcome, failed.value, failed.stdout, failed.returncode) == ("error", None, "so far\n", 3)
    assert run_script("def g(): return __name__\nprint(g(), [g() for _ in 'a'])").value == "__main__ ['__main__']\n"


@walled
def test_a_script_may_write_read_and_remove_files_of_its_own(outside):
    write = "import os\nopen('a', 'w').write('12')\nos.rename('a', 'b')\nprint(open('b').read(), os.listdir())\n"
    assert run_script(write + "os.remove('b')", Limits(file_bytes=100)).value == "12 ['b']\n"
    assert harm(outside) == []


@walled
def test_the_standard_library_is_there():
    code = "import collections, decimal, hashlib, heapq, itertools, json, random, re, sqlite3, ssl, statistics, string"
    assert (
        run_script(f"{code}\nprint(hashlib.sha256(b'').hexdigest()[:6], random.random() < 1)").value == "e3b0c4 True\n"
    )


@walled
def test_many_threads_at_once_get_their_own_values_and_leave_no_descriptors():
    call_function("def f(n): return n", "f", (0,), {})
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: call_function("def f(n): return [n] * n", "f", (n,), {}).value, range(40)))
    assert results == [[n] * n for n in range(40)]
    assert len(os.listdir("/proc/self/fd")) == before


# --- what the machine must have


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("_landlock_abi", lambda: 0, "no Landlock"),
        ("_has_seccomp", lambda architecture: False, "no seccomp"),
        ("platform", type("P", (), {"system": lambda: "Darwin", "machine": lambda: "arm64"}), "Darwin on arm64"),
    ],
)
def test_without_walls_nothing_runs(name, value, says, monkeypatch):
    monkeypatch.setattr(support, name, value)
    support.sandbox_support.cache_clear()
    monkeypatch.setattr(subprocess, "Popen", None)
    try:
        assert not support.sandbox_support().available
        with pytest.raises(SandboxError, match=f"{says}.*Leave the code benchmarks out"):
            run_script("print(1)")
    finally:
        support.sandbox_support.cache_clear()


@walled
def test_walls_that_the_child_cannot_put_up_are_an_error(monkeypatch):
    monkeypatch.setattr("lean_align.sandbox.process.filter_program", lambda *_: b"\0" * 16)
    with pytest.raises(SandboxError, match=r"walls: .*PR_SET_SECCOMP: Invalid argument. No code was run"):
        run_script("print(1)")
    monkeypatch.undo()
    with pytest.raises(SandboxError, match=r"Too many open files.* No code was run"):
        run_script("print(1)", Limits(open_files=3))


@pytest.mark.parametrize(
    "field", ["cpu_seconds", "wall_seconds", "memory_bytes", "files", "output_bytes", "open_files"]
)
def test_limits_of_nothing_are_refused(field):
    with pytest.raises(SandboxError, match=f"Limits.{field} is 0; expected more than 0"):
        Limits(**{field: 0})
    with pytest.raises(SandboxError, match="expected an int"):
        Limits(cpu_seconds=0.5)


# --- the filter, on both architectures: the bytes are run by an interpreter of its own


def verdict(program: bytes, number: int, *arguments: int, architecture: int) -> int:
    """Classic BPF, as far as the filter uses it: load, and, two jumps, return."""
    data = struct.pack(
        "<iIQ6Q", number, architecture, 0, *[a & (2**64 - 1) for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    )
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:
                accumulator &= value
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x35:
                at += if_true if accumulator >= value else if_false
            case 0x06:
                return value


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_filter_allows_its_list_and_nothing_else(architecture):
    program, ours = filter_program(architecture), AUDIT_ARCH[architecture]
    allowed = set(allowed_calls(architecture).values())
    checked = set(checked_calls(architecture).values())
    assert not allowed & checked
    for number in range(600):
        if number not in checked:
            expected = ALLOW if number in allowed else ENOSYS if number >= 424 else EPERM
            assert verdict(program, number, architecture=ours) == expected, number
    assert verdict(program, 0x40000000 | min(allowed), architecture=ours) == KILL
    assert {verdict(program, n, architecture=other) for n in allowed for other in (0x40000003, 0x40000028)} == {KILL}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_arguments_of_the_checked_calls(architecture):
    program, number = filter_program(architecture), checked_calls(architecture)

    def asked(name, *arguments):
        return verdict(program, number[name], *arguments, architecture=AUDIT_ARCH[architecture])

    assert [asked("fcntl", 1, command) for command in (0, 1, 2, 3, 1030)] == [ALLOW] * 5
    assert [asked("fcntl", 1, command) for command in (4, 8, 10, 15, 1031, 1033)] == [EPERM] * 6
    assert asked("ioctl", 1, 0x5401) == ALLOW
    assert asked("ioctl", 1, 0x5412) == EPERM  # TIOCSTI types into a terminal
    assert asked("openat", 0, 0, os.O_WRONLY | os.O_TRUNC | os.O_CREAT) == ALLOW
    assert asked("openat", 0, 0, os.O_RDONLY | os.O_CLOEXEC) == ALLOW
    assert [asked("openat", 0, 0, mode | os.O_TRUNC) for mode in (0, 3)] == [EPERM] * 2
    assert asked("prlimit64", 0, 7, 0, 1) == ALLOW
    assert [asked("prlimit64", pid, 7, new, 1) for pid, new in ((1, 0), (0, 8), (0, 2**32))] == [EPERM] * 3


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the headers are this machine's")
def test_the_numbers_are_those_of_the_headers():
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers")
    words = [line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_")]
    numbers = {word[1].removeprefix("__NR_"): int(word[2]) for word in words}
    every_wall = frozenset({"processes", "network", "signals"})
    for name, number in (allowed_calls("x86_64", every_wall) | checked_calls("x86_64")).items():
        assert numbers[name] == number, name


@pytest.mark.parametrize(
    ("abi", "bytes_", "rights"), [(1, 8, 13), (2, 8, 14), (3, 8, 15), (4, 16, 15), (6, 24, 16), (9, 24, 16)]
)
def test_landlock_handles_what_the_kernel_knows(abi, bytes_, rights):
    attribute = handled_rights(abi)
    assert len(attribute) == bytes_
    words = struct.unpack(f"<{bytes_ // 8}Q", attribute)
    assert words == (2**rights - 1, 0b11, 0b11)[: len(words)]


# --- literals


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
    | st.builds(range, st.integers(-9, 9), st.integers(-(2**62), 2**62))
    | st.integers(1_000, 13_999).map(lambda bits: -(1 << bits))
    | st.text()
    | st.binary()
)
hashable = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_what_is_written_is_read_back(value):
    text = literal_text(value)
    assert text.isascii()
    read = parse_literal(text)
    assert read == value
    assert type(read) is type(value)
    if not any(word in text for word in ("inf", "range")):
        assert ast.literal_eval(text) == value


words = "1 - + 1j 'a' b'x' [ ] ( ) { } , : set() range( nan inf None True ... ** * 1e999 f'' x lambda:0 \\ \0 \ud800"
pieces = st.sampled_from([*words.split(), "1" * 400, "0xffff", "0x" + "f" * 5000, " ", "\n"])


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=9).map("".join))
@pytest.mark.filterwarnings("ignore")
def test_no_text_raises_anything_but_value_error_nor_gives_a_value_that_raises(text):
    for whole in (text, f"({text},), {{}}"):
        try:
            value = parse_literal(whole)
        except ValueError:
            continue
        assert repr(value)
        assert calls._are_arguments(value) in (True, False)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "f()",
            "set([1])",
            "range()",
            "range(1.5)",
            "range(1, 2, 0)",
            "...",
            "0x" + "f" * 4000,
            "1" * 400 + "+1j",
            "range(1" + "0" * 30 + ")",
            "1 + 1",
            "x",
            "__import__('os')",
        ),
        *("{[]: 1}", "{**{}}", "'a' 'b", "\ud800", "1" * 5000, "~1", "-'a'", "f'{1}'"),
        *("[" * 150 + "]" * 150, "-" * 60_000 + "1", "1+" * 30_000 + "1j", "not " * 30_000 + "1"),
    ],
)
def test_no_literals(text):
    outcomes = []

    def read():
        try:
            literal_text(parse_literal(text))
        except (ValueError, NoLiteral):
            outcomes.append("refused")

    thread = threading.Thread(target=read)  # its stack is not the main thread's
    thread.start()
    thread.join()
    assert outcomes == ["refused"]


# --- CRUXEval (arXiv 2401.03065): https://github.com/facebookresearch/cruxeval


@walled
def test_gold_inputs_of_cruxeval_give_the_gold_outputs(shared_data):
    """Every 20th of 800, and the four whose arguments are no plain literals; two of these hold functions."""
    file = shared_data / "crux" / "cruxeval.jsonl"
    if not file.exists():
        pytest.skip("cruxeval.jsonl is not among the data sets")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 800
    picked = [row for n, row in enumerate(rows) if n % 20 == 0 or n in (258, 344, 364, 522)]
    unequal = [row["id"] for row in picked if not _gold_is_right(row)]
    assert unequal == ["sample_344", "sample_364"]


def _gold_is_right(row) -> bool:
    arguments = evaluate_arguments(row["input"], context=row["code"])
    if arguments.outcome != "value":
        return False
    answer = call_function(row["code"], "f", *arguments.value)
    return answer.outcome == "value" and answer.value == ast.literal_eval(row["output"])


@walled
def test_the_python_of_the_page_does_what_it_says():
    page = (ROOT / "docs" / "sandbox.md").read_text()
    (block,) = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    scope = {
        "source": "def f(xs, reverse): return sorted(xs, reverse=reverse)",
        "gold": [3, 3, 1, 1],
        "program": "print(sum(map(int, input().split())))",
    }
    exec(compile(block, "sandbox.md", "exec"), scope)
    assert scope["arguments"].value == (([3, 1, 3, 1],), {"reverse": True})
    assert scope["right"]
    assert scope["printed"] == "7\n"
