# Runs before driver.py when a Jupyter session starts: with ipykernel in the image a kernel of its own answers. Without it, driver.py goes on.
def kernel():
    import os
    from importlib.util import find_spec
    if not (find_spec("ipykernel") and find_spec("jupyter_client")): return None
    from jupyter_client import KernelManager
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    manager = KernelManager(kernel_name="python3")
    # What is written without Python goes to our own standard output, where it is looked for; ipykernel would tell of it when it likes.
    manager.start_kernel(extra_arguments=["--HistoryManager.enabled=False", "--InteractiveShell.colors=nocolor", "--IPKernelApp.capture_fd_output=False", "--log-level=CRITICAL"])
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute(SETUP, silent=True, store_history=False, allow_stdin=False, reply=True, timeout=60)
    return manager, client
# A forked child prints where its parent's subprocesses do: what it tells the kernel comes when it may. C code's buffer is emptied after each cell.
SETUP = """
def _stockade():
    import os, sys
    def child():
        sys.stdout, sys.stderr = (os.fdopen(os.dup(fd), "w", 1, encoding="utf-8", errors="backslashreplace") for fd in (1, 2))
    os.register_at_fork(after_in_child=child)
    def flush(*_):
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream: stream.flush()
        if "ctypes" in sys.modules: sys.modules["ctypes"].CDLL(None).fflush(None)
    get_ipython().events.register("post_run_cell", flush)
_stockade(); del _stockade
"""
LIMIT = 2 * 1024 * 1024
class Outputs:
    def __init__(self): self.list, self.shown, self.size, self.omitted, self.clear = [], {}, 0, 0, False
    def add(self, output):
        if self.clear: self.list.clear(); self.shown.clear(); self.clear = False
        self.list.append(output)
    def take(self, kind, content):
        if kind == "stream":
            text = content["text"][:max(0, LIMIT - self.size)]
            self.size += len(text)
            self.omitted += len(content["text"]) - len(text)
            if not text: return
            last = self.list[-1] if self.list and not self.clear else {}
            if last.get("name") == content["name"]: last["text"] += text
            else: self.add({"output_type": "stream", "name": content["name"], "text": text})
        elif kind in ("display_data", "execute_result", "update_display_data"):
            name = (content.get("transient") or {}).get("display_id")
            output = {"output_type": kind, "data": content["data"], "metadata": content["metadata"]}
            if kind == "execute_result": output["execution_count"] = content["execution_count"]
            if kind == "update_display_data":
                if name in self.shown: self.shown[name].update(data=output["data"], metadata=output["metadata"])
                return
            if name: self.shown[name] = output
            self.add(output)
        elif kind == "error":
            self.add({"output_type": "error", "ename": content["ename"], "evalue": content["evalue"], "traceback": content["traceback"]})
        elif kind == "clear_output":
            if content.get("wait"): self.clear = True
            else: self.list.clear(); self.shown.clear()
    def whole(self):
        if self.omitted: self.list.append({"output_type": "stream", "name": "stderr", "text": "\n[... %d more characters omitted ...]\n" % self.omitted})
        return self.list
def tell(message):
    import json, os
    line = json.dumps(message, default=str, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    while line: line = line[os.write(101, line):]
def dead(manager, outputs):
    import os
    # What it printed is told all the same.
    for output in outputs.whole(): tell({"outputs": [output]})
    code = manager.provisioner.process.poll() if manager.provisioner and manager.provisioner.process else 1
    os._exit(1 if code is None else code if code >= 0 else 128 - code)
# What comes after the end of the code that printed it belongs to what runs now.
def receive(manager, get, ident, outputs):
    from queue import Empty
    while True:
        try: message = get(timeout=0.5)
        except Empty:
            if not manager.is_alive(): dead(manager, outputs)
            continue
        except KeyboardInterrupt:
            manager.interrupt_kernel()
            continue
        if message["parent_header"].get("msg_id") == ident: return message
        if message["msg_type"] == "stream": outputs.take("stream", message["content"])
def ask(manager, client, request):
    outputs = Outputs()
    if request.get("cwd"): client.execute("import os as _o; _o.chdir(%r); del _o" % request["cwd"], silent=True, allow_stdin=False)
    ident = client.execute(request["code"], allow_stdin=False)
    while True:
        message = receive(manager, client.get_iopub_msg, ident, outputs)
        kind, content = message["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] == "idle": break
        outputs.take(kind, content)
    reply = receive(manager, client.get_shell_msg, ident, outputs)
    reply = reply["content"]
    status, code = ("ok", 0) if reply["status"] == "ok" else ("error", 1)
    if reply.get("ename") == "SystemExit":
        value = reply.get("evalue", "")
        code = int(value) if value.isdigit() else 0 if value in ("", "None") else 1
        if not code: status = "ok"; outputs.list = [output for output in outputs.list if output["output_type"] != "error"]
    return {"status": status, "exit_code": code, "execution_count": reply.get("execution_count"), "outputs": outputs.whole()}
def serve():
    import json, os
    try: running = kernel()
    except Exception: running = None
    if running is None: return
    requests = os.fdopen(100, "r", encoding="utf-8")
    os.set_inheritable(100, False); os.set_inheritable(101, False)
    while True:
        try: line = requests.readline()
        except KeyboardInterrupt: continue
        if not line:
            running[0].shutdown_kernel(now=True)
            os._exit(0)
        try: answer = ask(*running, json.loads(line))
        except BaseException as error:
            answer = {"status": "error", "exit_code": 1, "execution_count": None, "outputs": [
                {"output_type": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": []}]}
        try: tell(answer)
        except KeyboardInterrupt: pass
serve()
del kernel, dead, receive, ask, serve, tell, Outputs, SETUP
