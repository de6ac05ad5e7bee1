# The machine's network.
port, abstract = FACTS["port"], FACTS["abstract"]
def connect(family, address, seconds=2):
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(seconds)
        stream.connect(address)
        return "connected"

# The machine's own listener, on each address by which it might be reached.
addresses = ["127.0.0.1", "127.0.0.53", "127.255.255.254", "0.0.0.0", "localhost"] + FACTS["addresses"]
with open("/proc/net/route") as file:
    for line in list(file)[1:]:
        gateway = line.split()[2]
        if gateway != "00000000":
            addresses.append(socket.inet_ntoa(struct.pack("<I", int(gateway, 16))))
for address in addresses:
    refused(f"the machine's port {port} by {address}", lambda: connect(socket.AF_INET, (address, port)))
for address in ["::1", "::", "::ffff:127.0.0.1"]:
    refused(f"the machine's port {port} by {address}", lambda: connect(socket.AF_INET6, (address, port)))
refused("the server's port", lambda: connect(socket.AF_INET, ("127.0.0.1", FACTS["server_port"])))
for address in ["169.254.169.254", "100.100.100.200", "168.63.129.16"]:
    refused(f"the provider's metadata at {address}", lambda: connect(socket.AF_INET, (address, 80), 1))

# Sockets by name.
refused("an abstract socket of the machine", lambda: connect(socket.AF_UNIX, b"\0" + abstract.encode()), errno.ECONNREFUSED)
for path in ["/proc/net/unix", "/proc/net/tcp", "/proc/net/tcp6", "/proc/net/netlink"]:
    text = read(path, 1 << 20).decode()
    holds(f"{path} tells of the machine", abstract not in text and f":{port:04X} " not in text)

# Changing the network there is.
for request in [0x8914, 0x8916, 0x8924, 0x890B]:
    name = struct.pack("16sH", b"lo", 0).ljust(40, b"\0")
    with socket.socket() as any_socket:
        refused(f"ioctl {request:#x}", lambda: fcntl.ioctl(any_socket, request, name))
def netlink(kind, body):
    with socket.socket(16, socket.SOCK_RAW, 0) as link:
        link.send(struct.pack("IHHII", 16 + len(body), kind, 0x605, 1, 0) + body)
        answer = link.recv(4096)
        code = struct.unpack("i", answer[16:20])[0]
        if code:
            raise OSError(-code, os.strerror(-code))
        return "done"
refused("making an interface", lambda: netlink(16, b"\0" * 16 + struct.pack("HHHH4s", 16, 18, 9, 1, b"veth") + b"\0" * 4), errno.EPERM)
refused("making an address", lambda: netlink(20, struct.pack("BBBBI", 2, 8, 0, 0, 1) + struct.pack("HH4s", 8, 2, b"\x0a\0\0\1")), errno.EPERM)
# Interfaces: loopback, and one more when the network is open.
interfaces = os.listdir("/sys/class/net") if os.path.isdir("/sys/class/net") else [name for _, name in socket.if_nameindex()]
holds(f"interfaces {interfaces}", len(interfaces) <= 2 and "lo" in interfaces)
