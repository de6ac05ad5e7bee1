# /proc and /sys: nothing that changes the machine, little that tells of it.
def try_write(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    os.close(descriptor)
    return "opened for writing"

def walk(top):
    for directory, names, files in os.walk(top, onerror=lambda error: None):
        names[:] = [name for name in names if not os.path.islink(os.path.join(directory, name))]
        for name in files:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                yield path

for path in walk("/proc/sys"):
    refused(f"writing to {path}", lambda: try_write(path))
for path in walk("/sys"):
    refused(f"writing to {path}", lambda: try_write(path))
for entry in os.listdir("/proc"):
    path = f"/proc/{entry}"
    # A covered file is /dev/null, which may be written to.
    if not entry.isdigit() and os.path.isfile(path):
        refused(f"writing to {path}", lambda: try_write(path))
    elif os.path.isdir(path) and entry in ["acpi", "asound", "scsi", "bus", "fs", "irq", "driver", "sys", "tty"]:
        refused(f"making a file in {path}", lambda: os.open(f"{path}/x", os.O_CREAT | os.O_WRONLY))
for path in ["cmdline", "bootconfig", "kcore", "kallsyms", "kmsg", "keys", "key-users", "timer_list", "sched_debug", "slabinfo", "vmallocinfo", "iomem",
             "ioports", "modules", "config.gz", "kpagecount", "kpageflags", "interrupts", "latency_stats", "sysrq-trigger"]:
    path = f"/proc/{path}"
    try:
        content = read(path, 64)
    except OSError:
        content = b""
    holds(f"{path} is empty: {content!r}", content == b"")
for path in ["/sys/kernel", "/sys/fs/bpf", "/sys/firmware", "/sys/class/dmi", "/sys/devices/virtual/dmi", "/sys/power",
             "/sys/module", "/sys/kernel/debug", "/sys/kernel/security", "/proc/acpi", "/proc/scsi", "/proc/asound"]:
    holds(f"{path} shows nothing", not os.path.isdir(path) or not os.listdir(path))
for path in ["/proc/1/root/etc", "/proc/1/cwd", "/proc/self/root/root/.ssh"]:
    refused(f"listing {path}", lambda: os.listdir(path))
mounts = read("/proc/self/mountinfo", 1 << 20).decode()
for word_ in ["debugfs", "securityfs", "tracefs", "bpf", "configfs", "devtmpfs", "efivarfs"]:
    # Single devices of the machine's are what an ordinary user's sandboxes have.
    places = [line.split(" ")[4] for line in mounts.splitlines() if f" - {word_} " in line]
    holds(f"{word_} is mounted at {places}", not any(os.path.isdir(place) for place in places))

# Devices: those every program needs.
harmless = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "console"}
devices = set(os.listdir("/dev"))
holds(f"no other devices: {devices - harmless}", devices <= harmless)
for path in ["/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/fuse", "/dev/kvm", "/dev/net/tun", "/dev/loop-control", "/dev/vda", "/dev/sda"]:
    refused(f"opening {path}", lambda: os.open(path, os.O_RDWR))
