import ast, asyncio, base64, codecs, inspect, io, json, os, signal, sys, traceback, _thread
LIMIT = 2 * 1024 * 1024
# Half of a pair is no character, and what is not JSON ends the session.
codecs.register_error("stockade", lambda error: (b"\xef\xbf\xbd" * (error.end - error.start), error.end))
requests = os.fdopen(100, "r", encoding="utf-8")
os.set_inheritable(100, False); os.set_inheritable(101, False)
os.environ.setdefault("MPLBACKEND", "Agg")
# What was printed is told at once while code runs, so that it is known however the code ends. Between two pieces of
# code nobody listens, and it waits for the next.
waiting, size, omitted, running, forked = [], 0, 0, False, False
lock, every, usual = _thread.RLock(), signal.valid_signals(), signal.pthread_sigmask(signal.SIG_BLOCK, [])
def put(output):
    if forked:
        if output.get("data"): write_all(1, (output["data"]["text/plain"] + "\n").encode("utf-8", "stockade"))
    elif running: send({"outputs": [output]})
    elif output["output_type"] == "stream" and waiting and waiting[-1].get("name") == output["name"]: waiting[-1]["text"] += output["text"]
    else: waiting.append(output)
def send(message):
    line = json.dumps(message, default=str, ensure_ascii=False).encode("utf-8", "stockade") + b"\n"
    with lock:
        try:
            # A signal in the middle would leave half a line, and the next would be taken for the rest of it.
            signal.pthread_sigmask(signal.SIG_BLOCK, every)
            os.write(101, line)
        finally: signal.pthread_sigmask(signal.SIG_SETMASK, usual)
def write_all(fd, data):
    while data: data = data[os.write(fd, data):]
class Stream(io.TextIOBase):
    encoding, errors, line_buffering = "utf-8", "replace", True
    def __init__(self, name, fd): self.name_, self.fd, self.buffer = name, fd, Buffer(self)
    def writable(self): return True
    def fileno(self): return self.fd
    def isatty(self): return False
    def reconfigure(self, **_): pass
    def write(self, text):
        if not isinstance(text, str): raise TypeError("write() argument must be str, not " + type(text).__name__)
        # A forked child shares nothing with us but the descriptors.
        if forked: write_all(self.fd, text.encode("utf-8", "stockade"))
        else: self.buffer.end(); self.take(text)
        return len(text)
    def take(self, text):
        global size, omitted
        kept = text[:max(0, LIMIT - size)]
        size += len(kept); omitted += len(text) - len(kept)
        if kept: put({"output_type": "stream", "name": self.name_, "text": kept})
class Buffer(io.BufferedIOBase):
    def __init__(self, stream): self.stream, self.decoder = stream, codecs.getincrementaldecoder("utf-8")("replace")
    @property
    def raw(self): return self
    def writable(self): return True
    def fileno(self): return self.stream.fd
    def isatty(self): return False
    def write(self, data):
        data = bytes(data)
        if forked: write_all(self.stream.fd, data)
        else: self.stream.take(self.decoder.decode(data))
        return len(data)
    # What is left of a character will not be continued.
    def end(self):
        rest = self.decoder.decode(b"", True)
        self.decoder.reset()
        if rest: self.stream.take(rest)
def after_fork():
    global forked
    forked = True
    # The answers are the parent's, and its end is to be seen while children live.
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (100, 101): os.dup2(null, fd, False)
    os.close(null)
os.register_at_fork(after_in_child=after_fork)
c_code, modules = False, 0
# Lets go of what C code has printed and keeps. It takes a module to find out, which is looked for where C code may have run.
def flush_c():
    global c_code, modules
    if not c_code and len(sys.modules) != modules:
        modules = len(sys.modules)
        own = os.path.dirname(os.__file__)
        foreign = lambda file: isinstance(file, str) and file.endswith(".so") and ("-packages" in file or not file.startswith(own))
        c_code = "ctypes" in sys.modules or any(foreign(getattr(module, "__file__", None)) for module in list(sys.modules.values()))
    if c_code:
        import ctypes
        ctypes.CDLL(None).fflush(None)
MIMES = [("text/html", "_repr_html_"), ("text/markdown", "_repr_markdown_"), ("image/svg+xml", "_repr_svg_"), ("image/png", "_repr_png_"),
         ("image/jpeg", "_repr_jpeg_"), ("text/latex", "_repr_latex_"), ("application/json", "_repr_json_")]
def rich(value):
    data = {"text/plain": repr(value)[:LIMIT]}
    if inspect.isclass(value): return data
    bundle = getattr(value, "_repr_mimebundle_", None)
    if callable(bundle):
        try:
            found = bundle()
            data.update(found[0] if isinstance(found, tuple) else found or {})
        except Exception: pass
    for mime, name in MIMES:
        method = getattr(value, name, None)
        if mime in data or not callable(method): continue
        try: found = method()
        except Exception: continue
        if found is None: continue
        if isinstance(found, tuple): found = found[0]
        data[mime] = base64.b64encode(found).decode() if isinstance(found, bytes) else found
    return data
def display(*values, **_):
    for value in values: put({"output_type": "display_data", "data": rich(value), "metadata": {}})
def figures():
    plot = sys.modules.get("matplotlib.pyplot")
    if plot is None: return
    for number in plot.get_fignums():
        image = io.BytesIO()
        figure = plot.figure(number)
        figure.savefig(image, format="png", bbox_inches="tight")
        put({"output_type": "display_data", "metadata": {},
             "data": {"image/png": base64.b64encode(image.getvalue()).decode(), "text/plain": repr(figure)}})
    plot.close("all")
import builtins
builtins.display = display
names = {"__name__": "__main__", "__builtins__": builtins, "__doc__": None}
main = type(sys)("__main__"); main.__dict__.update(names); sys.modules["__main__"] = main; names = main.__dict__
sys.path.insert(0, "")
loop = None
def evaluate(code, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
    value = eval(code, names)
    if code.co_flags & inspect.CO_COROUTINE:
        global loop
        loop = loop or asyncio.new_event_loop()
        value = loop.run_until_complete(value)
    return value
def run(source, count):
    import linecache
    name = "<cell %d>" % count
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    if tree.body: evaluate(compile(tree, name, "exec", flags))
    if last is not None:
        value = evaluate(compile(ast.Expression(last.value), name, "eval", flags))
        if value is not None and not source.rstrip().endswith(";"):
            names["_"] = value
            put({"output_type": "execute_result", "data": rich(value), "metadata": {}, "execution_count": count})
# Lets go of what Python, and code below it, has printed and keeps.
def flush():
    for stream in (sys.stdout, sys.stderr):
        try: stream.flush()
        except Exception: pass
    for stream in streams: stream.buffer.end()
    flush_c()
def perform(request):
    if request.get("cwd"): os.chdir(request["cwd"])
    run(request["code"], count)
    figures()
    flush()
# How it failed: nothing of ours is in the traceback.
def failed(error):
    code = 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if isinstance(error.code, str): sys.stderr.write(error.code + "\n")
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<cell"): trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    if forked: write_all(2, "".join(lines if code else []).encode("utf-8", "stockade"))
    elif code: put({"output_type": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": lines})
    flush()
    return code
streams = sys.stdout, sys.stderr = Stream("stdout", 1), Stream("stderr", 2)
count = 0
while True:
    try: line = requests.readline()
    except KeyboardInterrupt: continue
    if not line: break
    request = json.loads(line)
    size, omitted, count, code = 0, 0, count + 1, 0
    try:
        running, told, waiting = True, waiting, []
        if told: send({"outputs": told})
        perform(request)
    except BaseException as error:
        try: code = failed(error)
        except BaseException: code = 1
    # Code that forked and went on to its end has ended the child.
    if forked: os._exit(code)
    answer = {"status": "error" if code else "ok", "exit_code": code, "execution_count": count, "outputs": []}
    if omitted: answer["outputs"].append({"output_type": "stream", "name": "stderr", "text": "\n[... %d more characters omitted ...]\n" % omitted})
    running = False
    try: send(answer)
    except KeyboardInterrupt: pass
