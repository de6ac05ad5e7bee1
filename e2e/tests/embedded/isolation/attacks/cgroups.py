# The way out through control groups: their files, and mounting them anew.
for line in read("/proc/self/cgroup").decode().splitlines():
    path = line.split(":", 2)[2]
    holds(f"the group's place outside is not told: {line}", FACTS["id"] not in path and "stockade" not in path)
# Each by itself: what lies on another file system is not entered, and these are others.
found = subprocess.run(["find", "/", "/sys", "/proc", "-xdev", "(", "-name", "release_agent", "-o", "-name", "cgroup.procs", "-o", "-name", "notify_on_release", ")"],
                       capture_output=True, text=True).stdout
holds(f"no file of a control group is to be found: {found}", found == "")
os.makedirs("/tmp/groups", exist_ok=True)
mount = 165 if platform.machine() == "x86_64" else 40
for kind, options in [(b"cgroup", b"memory"), (b"cgroup", b"rdma"), (b"cgroup", b"none,name=escape"), (b"cgroup2", b"")]:
    refused(f"mounting {kind} {options}", lambda: call(mount, b"none", b"/tmp/groups", kind, 0, options), errno.EPERM)
refused("a new namespace of control groups", lambda: call(272 if mount == 165 else 97, 0x02000000), errno.EPERM)
# A descriptor of a group's file is what processes join by; none of them may be left with us or with the agent's children.
for name in os.listdir("/proc/self/fd"):
    link = os.readlink(f"/proc/self/fd/{name}") if os.path.islink(f"/proc/self/fd/{name}") else ""
    holds(f"descriptor {name} is {link}", "cgroup" not in link and "tasks" not in link)
