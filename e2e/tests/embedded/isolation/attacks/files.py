# The machine's files.
canary = FACTS["canary"]
found = subprocess.run(["find", "/", "(", "-path", "/proc", "-o", "-path", "/sys", ")", "-prune", "-o", "-name", f"*{canary}*", "-print"],
                       capture_output=True, text=True).stdout
holds(f"files of the machine are to be seen: {found}", found == "")
for path in FACTS["paths"]:
    refused(f"the machine's {path}", lambda: os.stat(path), errno.ENOENT, errno.EACCES, errno.ENOTDIR)
for path in ["/etc/shadow", "/etc/gshadow", "/etc/shadow-", "/etc/sudoers", "/etc/ssl/private", "/var/lib/docker", "/var/lib/stockade",
             "/run/docker.sock", "/var/run/docker.sock", "/run/systemd/private", "/run/dbus/system_bus_socket", "/root/.ssh", "/root/.bashrc"]:
    refused(f"opening {path}", lambda: os.open(path, os.O_RDONLY))
try:
    keys = [name for name in os.listdir("/etc/ssh") if name.startswith("ssh_host") and not name.endswith(".pub")]
except OSError:
    keys = []
for name in keys:
    refused(f"opening {name}", lambda: os.open(f"/etc/ssh/{name}", os.O_RDONLY))
for place in ["/root", "/home"]:
    others = [name for name in (os.listdir(place) if os.access(place, os.R_OK) else []) if os.path.join(place, name) != os.environ["HOME"]]
    holds(f"{place} has only what is the sandbox's: {others}", all(os.stat(os.path.join(place, name)).st_uid == os.getuid() for name in others))

# What lies on the root, or beside it.
for path in ["/..", "/../..", "/proc/self/root/..", "/proc/self/cwd/../../../../.."]:
    holds(f"{path} shows {os.listdir(path)}", sorted(os.listdir(path)) == sorted(os.listdir("/")))

# Writing to what is shared: it must fail or stay inside; the test looks outside for what was written.
for directory in ["/usr/bin", "/usr/local/bin", "/usr/lib", "/etc", "/bin", "/opt", "/var/lib", "/", "/boot", "/dev/shm", "/tmp", "/run", "/var/tmp"]:
    tried += 1
    try:
        with open(os.path.join(directory, FACTS["planted"]), "w") as file:
            file.write("x")
    except OSError:
        pass
for path in ["/usr/bin/env", "/etc/passwd", "/usr/lib/os-release", "/etc/hosts", "/etc/resolv.conf"]:
    tried += 1
    try:
        with open(path, "a") as file:
            file.write(FACTS["planted"])
    except OSError:
        pass

# Programs that would change their user.
with open("/proc/self/mountinfo") as file:
    for line in file:
        fields = line.split(" ")
        writable = "rw" in fields[5].split(",") and "rw" in line.split(" - ")[1].split(" ")[2].split(",")
        if writable and fields[4] not in ("/proc",):
            holds(f"{fields[4]} is mounted nosuid", "nosuid" in fields[5].split(","))
import shutil
# Outside, what lies in a mount is its owner's, root's perhaps, and no mount option holds there: no such program may come to be.
# The test looks outside for files of these modes.
X86 = platform.machine() == "x86_64"
O_TMPFILE = 0o20000000 | os.O_DIRECTORY
for directory in ["/mnt/user-data", "/tmp", os.environ["HOME"]]:
    place = os.path.join(directory, FACTS["planted"])
    shutil.copy("/bin/bash", place)
    path = place.encode()
    descriptor = os.open(place, os.O_RDWR)
    for mode in [0o4755, 0o2755, 0o6755]:
        new = iter(f"{place}-{mode:o}-{number}".encode() for number in range(100))
        calls = [
            ("fchmod", 91, 52, (descriptor, mode)),
            ("fchmodat", 268, 53, (-100, path, mode)),
            ("fchmodat2", 452, 452, (-100, path, mode, 0)),
            ("openat", 257, 56, (-100, next(new), os.O_CREAT | os.O_WRONLY, mode)),
            ("openat with another flag's half", 257, 56, (-100, next(new), 1 << 40 | os.O_CREAT | os.O_WRONLY, 1 << 40 | mode)),
            ("openat of a file without a name", 257, 56, (-100, directory.encode(), O_TMPFILE | os.O_RDWR, mode)),
            ("mknodat", 259, 33, (-100, next(new), stat.S_IFREG | mode, 0)),
            ("mkdirat", 258, 34, (-100, next(new), mode)),
        ]
        older = [("chmod", 90, (path, mode)), ("creat", 85, (next(new), mode)), ("open", 2, (next(new), os.O_CREAT | os.O_RDWR, mode)),
                 ("mknod", 133, (next(new), stat.S_IFREG | mode, 0)), ("mkdir", 83, (next(new), mode))]
        for name, x86, arm, arguments in calls:
            refused(f"{name} with mode {mode:o}", lambda: call(x86 if X86 else arm, *arguments), errno.EPERM)
        for name, number, arguments in older if X86 else []:
            refused(f"{name} with mode {mode:o}", lambda: call(number, *arguments), errno.EPERM)
        refused("openat2", lambda: call(437, -100, next(new), struct.pack("QQQ", os.O_CREAT | os.O_WRONLY, mode, 0), 24), errno.ENOSYS)
    os.close(descriptor)
    holds(f"{place} is what it was", stat.S_IMODE(os.stat(place).st_mode) & 0o6000 == 0)
for program in [["su", "-c", "id -u"], ["sudo", "-n", "id", "-u"], ["mount", "--bind", "/", "/mnt"], ["newgrp", "root"], ["unshare", "-r", "id", "-u"], ["chroot", "/", "id"], ["nsenter", "-t", "1", "-a", "id"]]:
    if shutil.which(program[0]):
        done = subprocess.run(program, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        holds(f"{program}: {done}", done.returncode != 0 or done.stdout.strip() not in ("0", ""))
program = os.path.join("/mnt/user-data", FACTS["planted"])
refused("a file's capabilities", lambda: os.setxattr(program, "security.capability", struct.pack("<IIIII", 0x2000001, 0xffffffff, 0, 0xffffffff, 0)))
refused("an attribute of the system's", lambda: os.setxattr(program, "trusted.overlay.opaque", b"y"))
