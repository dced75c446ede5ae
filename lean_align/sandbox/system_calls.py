"""Numbers of the system calls that the filter lets through, on x86_64 and on aarch64.

Source: asm/unistd_64.h and asm-generic/unistd.h of Linux.  A dash means that the architecture lacks the call.
"""

from __future__ import annotations

ARCHITECTURES = ("x86_64", "aarch64")
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Source: linux/audit.h."""

# Left out on purpose, since Landlock does not see them: chmod, chown, utime, setxattr and truncate of any path that
# the user owns; prlimit, setpriority and scheduling of other processes; kill; prctl, with which a child could stop
# dying with its parent.  memfd, pipes and System V memory would hold bytes that no limit counts.
_ALLOWED = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, close 3 57, lseek 8 62,
stat 4 -, lstat 6 -, fstat 5 80, newfstatat 262 79, statx 332 291, access 21 -, faccessat 269 48,
readlink 89 -, readlinkat 267 78, getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50,
unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38, renameat2 316 276, ftruncate 77 46, fsync 74 82,
fdatasync 75 83, fadvise64 221 223, dup 32 23, dup2 33 -, dup3 292 24, poll 7 -, ppoll 271 73, select 23 -,
pselect6 270 72, umask 95 166,
mmap 9 222, munmap 11 215, mremap 25 216, mprotect 10 226, madvise 28 233, brk 12 214,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, sigaltstack 131 132,
restart_syscall 219 128, alarm 37 -, pause 34 -, setitimer 38 103, getitimer 36 102,
futex 202 98, set_robust_list 273 99, rseq 334 293, sched_yield 24 124, sched_getaffinity 204 123, getcpu 309 168,
clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169,
time 201 -, times 100 153, getrusage 98 165,
getpid 39 172, gettid 186 178, getppid 110 173, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177,
getgroups 115 158, getresuid 118 148, getresgid 120 150, getpgrp 111 -, uname 63 160, getrandom 318 278,
getrlimit 97 163, sysinfo 99 179, exit 60 93, exit_group 231 94
"""
_CHECKED = "open 2 -, openat 257 56, fcntl 72 25, ioctl 16 29, prlimit64 302 261"
_LEFT_OUT = {
    "processes": "fork 57 -, vfork 58 -, clone 56 220, wait4 61 260, setsid 112 157",
    "network": "socket 41 198, bind 49 200, listen 50 201, accept4 288 242, connect 42 203, getsockname 51 204, "
    "setsockopt 54 208, sendto 44 206, recvfrom 45 207, shutdown 48 210",
    "signals": "kill 62 129",
}
FIRST_NEW_CALL = 424
"""From here on the numbers are those of every architecture.  C libraries try these calls, and fall back on ENOSYS."""


def allowed_calls(architecture: str, left_out: frozenset[str] = frozenset()) -> dict[str, int]:
    """Name and number of each call that is let through whatever its arguments; `left_out` is for tests of the walls."""
    tables = [_ALLOWED, *(_LEFT_OUT[wall] for wall in sorted(left_out & _LEFT_OUT.keys()))]
    return {name: number for table in tables for name, number in _numbers(table, architecture).items()}


def checked_calls(architecture: str) -> dict[str, int]:
    """Name and number of each call that is let through with some arguments only."""
    return _numbers(_CHECKED, architecture)


def _numbers(table: str, architecture: str) -> dict[str, int]:
    column = 1 + ARCHITECTURES.index(architecture)
    rows = [entry.split() for entry in table.split(",")]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}
