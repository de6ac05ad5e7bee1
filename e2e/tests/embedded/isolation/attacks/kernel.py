# System calls that lead out, or into the kernel.
X86 = platform.machine() == "x86_64"
# name: number on x86_64, on aarch64, arguments, and which errors are right
EPERM, ENOSYS = errno.EPERM, errno.ENOSYS
NEWNS, NEWUSER, NEWNET, NEWPID, NEWTIME = 0x20000, 0x10000000, 0x40000000, 0x20000000, 0x80
CALLS = [
    ("mount", 165, 40, (b"none", b"/tmp", b"tmpfs", 0, 0), EPERM),
    ("mount, binding", 165, 40, (b"/", b"/tmp", 0, 0x1000, 0), EPERM),
    ("mount, remounting", 165, 40, (b"none", b"/usr", 0, 0x20, 0), EPERM),
    ("umount", 166, 39, (b"/proc", 2), EPERM),
    ("pivot_root", 155, 41, (b".", b"."), EPERM),
    ("chroot", 161, 51, (b"/tmp",), EPERM),
    ("open_tree", 428, 428, (-100, b"/", 1), EPERM),
    ("move_mount", 429, 429, (-100, b"/tmp", -100, b"/mnt", 0), EPERM),
    ("fsopen", 430, 430, (b"proc", 0), EPERM),
    ("fsmount", 432, 432, (0, 0, 0), EPERM),
    ("mount_setattr", 442, 442, (-100, b"/usr", 0, 0, 0), EPERM),
    ("unshare of mounts", 272, 97, (NEWNS,), EPERM),
    ("unshare of users", 272, 97, (NEWUSER,), EPERM),
    ("unshare of users and network", 272, 97, (NEWUSER | NEWNET,), EPERM),
    ("unshare of time", 272, 97, (NEWTIME,), EPERM),
    ("clone of users", 56, 220, (NEWUSER | 17, 0, 0, 0, 0), EPERM),
    ("clone of processes", 56, 220, (NEWPID | 17, 0, 0, 0, 0), EPERM),
    ("clone3", 435, 435, (0, 0), ENOSYS),
    ("setns", 308, 268, (0, 0), EPERM),
    ("bpf", 321, 280, (0, 0, 0), EPERM),
    ("perf_event_open", 298, 241, (0, 0, -1, -1, 0), EPERM),
    ("add_key", 248, 217, (b"user", b"x", b"y", 1, -4), EPERM),
    ("request_key", 249, 218, (b"user", b"x", 0, -4), EPERM),
    ("keyctl", 250, 219, (0, -3, 0), EPERM),
    ("userfaultfd", 323, 282, (0,), ENOSYS),
    ("userfaultfd for users", 323, 282, (1,), ENOSYS),
    ("io_uring_setup", 425, 425, (1, 0), ENOSYS),
    ("openat2", 437, 437, (-100, b"/tmp", struct.pack("QQQ", 0, 0, 0), 24), ENOSYS),
    ("io_setup", 206, 0, (1, b"\0" * 8), ENOSYS),
    ("io_submit", 209, 2, (0, 0, 0), ENOSYS),
    ("memfd_secret", 447, 447, (0,), ENOSYS),
    ("init_module", 175, 105, (0, 0, b""), EPERM),
    ("finit_module", 313, 273, (0, b"", 0), EPERM),
    ("delete_module", 176, 106, (b"x", 0), EPERM),
    ("kexec_load", 246, 104, (0, 0, 0, 0), EPERM),
    ("reboot", 169, 142, (1, 2, 3, 0), EPERM),
    ("swapon", 167, 224, (b"/tmp", 0), EPERM),
    ("acct", 163, 89, (b"/tmp",), EPERM),
    ("syslog", 103, 116, (3, 0, 0), EPERM),
    ("quotactl", 179, 60, (0, 0, 0, 0), EPERM),
    ("sethostname", 170, 161, (b"x", 1), EPERM),
    ("settimeofday", 164, 170, (0, 0), EPERM),
    ("open_by_handle_at", 304, 265, (-100, 0, 0), EPERM),
    ("fanotify_init", 300, 262, (0, 0), EPERM),
    ("kcmp", 312, 272, (1, 1, 0, 0, 0), EPERM),
    ("pidfd_getfd", 438, 438, (0, 0, 0), EPERM),
    ("move_pages", 279, 239, (1, 0, 0, 0, 0, 0), EPERM),
    ("personality with executable data", 135, 92, (0x0400000,), EPERM),
    ("a call nobody knows", 1000, 1000, (), ENOSYS),
]
for name, x86, arm, arguments, expected in CALLS:
    refused(name, lambda: call(x86 if X86 else arm, *arguments), expected)

if X86:
    for name, number, arguments in [("modify_ldt", 154, (0, 0, 0)), ("iopl", 172, (3,)), ("ioperm", 173, (0, 1, 1))]:
        refused(name, lambda: call(number, *arguments), EPERM)
    refused("a call of the x32 form", lambda: call(0x40000000 | 39), ENOSYS)

    def getpid_of_32_bits():
        import mmap
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()

    status = in_child(getpid_of_32_bits)
    holds(f"a call of 32 bits ends the process (status {status})", os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS)

# A shared terminal: typing for whoever reads it.
master, slave = os.openpty()
for name, request in [("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C), ("TIOCSETD", 0x5423)]:
    refused(name, lambda: fcntl.ioctl(slave, request, b"x\0\0\0"), EPERM)
    refused(f"{name} with a high half", lambda: call(16 if X86 else 29, slave, request | 1 << 32, b"x\0\0\0"), EPERM)

# Sockets into other parts of the kernel.
for family in [3, 9, 15, 17, 21, 29, 30, 31, 38, 39, 40, 41, 44]:
    refused(f"a socket of family {family}", lambda: socket.socket(family, socket.SOCK_DGRAM, 0), errno.EAFNOSUPPORT)
for protocol in [4, 9, 12, 15, 16]:
    refused(f"netlink {protocol}", lambda: socket.socket(16, socket.SOCK_RAW, protocol), errno.EPROTONOSUPPORT)
for family in [socket.AF_INET, socket.AF_INET6]:
    refused("a raw socket", lambda: socket.socket(family, socket.SOCK_RAW, 1))
    refused("SCTP", lambda: socket.socket(family, socket.SOCK_STREAM, 132), errno.EPROTONOSUPPORT)

# What the process may.
status = dict(line.split(":\t", 1) for line in read("/proc/self/status", 65536).decode().splitlines() if ":\t" in line)
for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
    holds(f"{name} is {status[name]}", int(status[name], 16) == 0)
holds("no new privileges", status["NoNewPrivs"] == "1")
holds("system calls are filtered", status["Seccomp"] == "2")
holds("secure bits are locked", libc.prctl(27, 0, 0, 0, 0) == 0xEF)
holds("there is one user", set(status["Uid"].split()) == {str(os.getuid())} and os.getuid() != 0)
holds("no other groups", all(int(group) in (os.getgid(), 65534) for group in status["Groups"].split()))
for number in [0, 1, 65534]:
    if number != os.getuid():
        refused(f"becoming user {number}", lambda: os.setuid(number))
        refused(f"becoming group {number}", lambda: os.setgid(number))
refused("a block device", lambda: os.mknod("/tmp/device", stat.S_IFBLK | 0o666, os.makedev(254, 0)))
refused("a character device", lambda: os.mknod("/tmp/device", stat.S_IFCHR | 0o666, os.makedev(1, 1)))
refused("more than it may lock", lambda: os.nice(-5))

# Limits: no core file, and no handler of crashes outside that gets one; a bounded part of what the machine has.
import resource
for limit in [(0, 0), (0, 1), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)]:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, limit)
    except (OSError, ValueError):
        pass
    if X86:
        call(160, resource.RLIMIT_CORE, struct.pack("QQ", 0, 0))
    holds("the limit of core files stays", resource.getrlimit(resource.RLIMIT_CORE) == (1, 1))
holds("open files of a process", resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= 65536)
terminals = []
try:
    while len(terminals) < 1000:
        terminals.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
except OSError:
    pass
holds(f"terminals are few: {len(terminals)}", len(terminals) <= 192)
