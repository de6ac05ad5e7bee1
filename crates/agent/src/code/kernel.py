# Runs before driver.py when a Jupyter session starts: with ipykernel in the image a kernel of its own answers. Without it, driver.py goes on.
def kernel():
    import os
    from importlib.util import find_spec
    from subprocess import DEVNULL
    if not (find_spec("ipykernel") and find_spec("jupyter_client")): return None
    from jupyter_client import KernelManager
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(extra_arguments=["--HistoryManager.enabled=False", "--InteractiveShell.colors=nocolor"], stdout=DEVNULL, stderr=DEVNULL)
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    return manager, client
LIMIT = 2 * 1024 * 1024
class Outputs:
    def __init__(self): self.list, self.shown, self.size, self.clear = [], {}, 0, False
    def add(self, output):
        if self.clear: self.list.clear(); self.shown.clear(); self.clear = False
        self.list.append(output)
    def take(self, kind, content):
        if kind == "stream":
            text = content["text"][:max(0, LIMIT - self.size)]
            self.size += len(content["text"])
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
def dead(manager):
    import os
    code = manager.provisioner.process.poll() if manager.provisioner and manager.provisioner.process else 1
    os._exit(1 if code is None else code if code >= 0 else 128 - code)
def receive(manager, get, ident):
    from queue import Empty
    while True:
        try: message = get(timeout=0.5)
        except Empty:
            if not manager.is_alive(): dead(manager)
            continue
        except KeyboardInterrupt:
            manager.interrupt_kernel()
            continue
        if message["parent_header"].get("msg_id") == ident: return message
def ask(manager, client, request):
    outputs = Outputs()
    if request.get("cwd"): client.execute("import os as _o; _o.chdir(%r); del _o" % request["cwd"], silent=True, allow_stdin=False)
    ident = client.execute(request["code"], allow_stdin=False)
    while True:
        message = receive(manager, client.get_iopub_msg, ident)
        kind, content = message["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] == "idle": break
        outputs.take(kind, content)
    reply = receive(manager, client.get_shell_msg, ident)
    reply = reply["content"]
    status, code = ("ok", 0) if reply["status"] == "ok" else ("error", 1)
    if reply.get("ename") == "SystemExit":
        value = reply.get("evalue", "")
        code = int(value) if value.isdigit() else 0 if value in ("", "None") else 1
        if not code: status = "ok"; outputs.list = [output for output in outputs.list if output["output_type"] != "error"]
    return {"status": status, "exit_code": code, "execution_count": reply.get("execution_count"), "outputs": outputs.list}
def serve():
    import json, os
    try: running = kernel()
    except Exception: running = None
    if running is None: return
    requests, answers = os.fdopen(100, "r", encoding="utf-8"), os.fdopen(101, "w", encoding="utf-8")
    os.set_inheritable(100, False); os.set_inheritable(101, False)
    while True:
        try: line = requests.readline()
        except KeyboardInterrupt: continue
        if not line:
            running[0].shutdown_kernel(now=True)
            os._exit(0)
        try: answer = json.dumps(ask(*running, json.loads(line)), default=str)
        except BaseException as error:
            answer = json.dumps({"status": "error", "exit_code": 1, "execution_count": None, "outputs": [
                {"output_type": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": []}]})
        try: answers.write(answer + "\n"); answers.flush()
        except KeyboardInterrupt: answers.write("\n"); answers.flush()
serve()
del kernel, dead, receive, ask, serve, Outputs
