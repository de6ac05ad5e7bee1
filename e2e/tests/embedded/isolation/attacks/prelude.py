# What attacks have in common: every attempt either fails, which is right, or is printed.
import ctypes, errno, fcntl, json, os, platform, signal, socket, stat, struct, subprocess, sys, time

FACTS = json.loads(FACTS)
libc = ctypes.CDLL(None, use_errno=True)
tried = 0


def refused(what, action, *numbers):
    """`action` has to fail with an OSError; with one of these numbers if there are any."""
    global tried
    tried += 1
    try:
        result = action()
    except OSError as error:
        if numbers and error.errno not in numbers:
            print(f"BREACH: {what}: {error}, not {[errno.errorcode[n] for n in numbers]}")
        return
    print(f"BREACH: {what}: {result!r}")


def holds(what, value):
    """`value` has to be true."""
    global tried
    tried += 1
    if not value:
        print(f"BREACH: {what}")


def word(value):
    return ctypes.c_long(value) if isinstance(value, int) else value


def call(number, *arguments):
    """A system call by its number."""
    ctypes.set_errno(0)
    result = libc.syscall(*[word(a) for a in (number, *arguments)])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def read(path, size=4096):
    with open(path, "rb", buffering=0) as file:
        return file.read(size)


def write(path, data=b"1"):
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return os.write(descriptor, data)
    finally:
        os.close(descriptor)


def in_child(action):
    """The wait status of a child that runs `action`."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:
            os._exit(99)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


import atexit
atexit.register(lambda: print("tried", tried))
