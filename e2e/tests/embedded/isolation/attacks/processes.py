# Processes outside, and the agent, which has the user of all commands.
for pid in FACTS["host_pids"]:
    if os.path.exists(f"/proc/{pid}"):
        # One of our own has the number.
        continue
    refused(f"a signal to process {pid} outside", lambda: os.kill(pid, 0), errno.ESRCH)
own = [int(name) for name in os.listdir("/proc") if name.isdigit()]
holds(f"few processes are to be seen: {own}", len(own) < 30)
names = {read(f"/proc/{pid}/comm").decode().strip() for pid in own if os.path.exists(f"/proc/{pid}/comm")}
holds(f"none of the machine's is: {names}", not names & {"systemd", "init", "sshd", "stockade", "kthreadd", "cargo", "dockerd"})

agent = [1] + [int(task) for task in os.listdir("/proc/1/task")]
for pid in agent:
    for name in ["mem", "environ", "maps", "auxv", "io", "stack", "syscall", "personality", "smaps", "pagemap"]:
        path = f"/proc/{pid}/{name}"
        if os.path.exists(path):
            refused(f"reading {path}", lambda: read(path), errno.EACCES, errno.EPERM)
    for name in ["root", "cwd", "exe", "ns/net", "ns/mnt", "ns/user", "fd/0", "fd/1", "fd/2"]:
        path = f"/proc/{pid}/{name}"
        refused(f"following {path}", lambda: os.readlink(path), errno.EACCES, errno.EPERM)
        refused(f"opening {path}", lambda: os.open(path, os.O_RDONLY), errno.EACCES, errno.EPERM, errno.ENXIO)
    refused(f"listing /proc/{pid}/fd", lambda: os.listdir(f"/proc/{pid}/fd"), errno.EACCES, errno.EPERM)
    for name in ["oom_score_adj", "clear_refs", "coredump_filter", "setgroups", "uid_map", "gid_map", "projid_map", "attr/current"]:
        path = f"/proc/{pid}/{name}"
        if os.path.exists(path):
            refused(f"writing {path}", lambda: write(path, b"0"))
    PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
    ptrace = 101 if platform.machine() == "x86_64" else 117
    refused(f"attaching to {pid}", lambda: call(ptrace, PTRACE_ATTACH, pid, 0, 0), errno.EPERM)
    refused(f"seizing {pid}", lambda: call(ptrace, PTRACE_SEIZE, pid, 0, 0), errno.EPERM)
    buffer = ctypes.create_string_buffer(8)
    vector = struct.pack("QQ", ctypes.addressof(buffer), 8)
    there = struct.pack("QQ", 0x400000, 8)
    for name, number in [("reading", 310), ("writing", 311)] if ptrace == 101 else [("reading", 270), ("writing", 271)]:
        refused(f"{name} the memory of {pid}", lambda: call(number, pid, vector, 1, there, 1, 0), errno.EPERM)

# Nothing was left open for commands, and nothing leads outside.
descriptors = {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{name}")}
strays = {name: link for name, link in descriptors.items() if int(name) > 2}
holds(f"no descriptor was inherited: {strays}", not strays)
holds(f"standard ones are pipes: {descriptors}", all(link.startswith(("pipe:", "/dev/null", "/tmp/")) for link in descriptors.values()))

# Namespaces: the ones we are in are not those of the machine, and there is no way to name those.
for name, outside in FACTS["namespaces"].items():
    holds(f"namespace {name} is the machine's", os.readlink(f"/proc/self/ns/{name}") != outside)
