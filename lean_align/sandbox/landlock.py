"""Which parts of the file system a child may reach, for the kernel's Landlock.

Read: the folders of the standard library and of the system's shared libraries.  Write: the throw-away folder, flat
(no folders, links, sockets or devices in it), and only where `file_bytes` is above 0.  Nothing else can be opened.

Source: linux/landlock.h.
"""

from __future__ import annotations

import os
import struct
import sysconfig
from functools import lru_cache

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE, MAKE_REG, TRUNCATE = (1 << bit for bit in (0, 1, 2, 3, 5, 8, 14))
_HANDLED_FILE_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Number of file rights that each ABI knows; 16 from ABI 5 on."""
_TCP_BIND_AND_CONNECT, _ABSTRACT_SOCKETS_AND_SIGNALS = 0b11, 0b11
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


def handled_rights(abi: int, left_out: frozenset[str] = frozenset()) -> bytes:
    """struct landlock_ruleset_attr: every right that this ABI knows, of which no rule means none granted."""
    network = 0 if "network" in left_out else _TCP_BIND_AND_CONNECT
    scopes = 0 if "signals" in left_out else _ABSTRACT_SOCKETS_AND_SIGNALS
    words = [_file_rights(abi)] + [network] * (abi >= 4) + [scopes] * (abi >= 6)
    return struct.pack(f"<{len(words)}Q", *words)


def file_rules(abi: int, folder: str, writable: bool) -> list[tuple[str, int]]:
    """Paths, each with the rights granted at and below it."""
    rules = [(path, READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE) for path in library_paths()]
    if writable:
        rights = READ_FILE | READ_DIR | WRITE_FILE | MAKE_REG | REMOVE_FILE | TRUNCATE
        rules.append((folder, rights & _file_rights(abi)))
    return rules


@lru_cache
def library_paths() -> tuple[str, ...]:
    """The interpreter's own folders and the system's shared libraries, where they exist."""
    names = ("LIBDIR", "DESTSHARED")
    own = {sysconfig.get_path("stdlib"), *(sysconfig.get_config_var(name) for name in names)}
    paths = {os.path.realpath(path) for path in (*own, *_SYSTEM_LIBRARIES) if path and os.path.exists(path)}
    return tuple(sorted(paths))


def _file_rights(abi: int) -> int:
    return (1 << _HANDLED_FILE_BITS.get(abi, 16)) - 1
