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
# Its own groups are shown, where there are any: to be read, and nothing else.
TOP = "/sys/fs/cgroup"
groups = []
for directory, names, files in os.walk(TOP):
    groups.append(directory)
    names[:] = [name for name in names if not os.path.islink(os.path.join(directory, name))]
    trees = directory == TOP and not files
    holds(f"only its own groups are in {directory}: {names}", trees or set(names) <= {"agent", "commands"})
    for name in files:
        path = os.path.join(directory, name)
        if os.path.islink(path):
            continue
        refused(f"writing to {path}", lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)))
        refused(f"opening up {path}", lambda: os.chmod(path, 0o666), errno.EROFS)
    refused(f"a group in {directory}", lambda: os.mkdir(f"{directory}/escape"), errno.EROFS)
    refused(f"giving {directory} away", lambda: os.chown(directory, os.getuid(), os.getgid()), errno.EROFS)
    refused(f"a mark on {directory}", lambda: os.setxattr(directory, "user.delegate", b"1"), errno.EROFS)
for directory in groups:
    refused(f"making {directory} writable", lambda: call(mount, b"none", directory.encode(), 0, 32 | 4096, 0), errno.EPERM)
    try:
        members = {int(pid) for pid in read(f"{directory}/cgroup.procs").split()}
    except FileNotFoundError:
        continue
    own = {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}
    # Some have ended meanwhile, or are new.
    holds(f"only its own processes are in {directory}: {members}", len(members) <= len(own) + 5 and 0 not in members)
holds("the group's place outside is not told by mounts", "stockade-" not in read("/proc/self/mountinfo", 1 << 20).decode())
holds("groups are shown", not FACTS["groups"] or (len(groups) > 1 or os.path.exists(f"{TOP}/cgroup.procs")))
