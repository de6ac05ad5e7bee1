import ast, asyncio, base64, inspect, io, json, os, sys, traceback
LIMIT = 2 * 1024 * 1024
requests, answers = os.fdopen(100, "r", encoding="utf-8"), os.fdopen(101, "w", encoding="utf-8")
os.set_inheritable(100, False); os.set_inheritable(101, False)
os.environ.setdefault("MPLBACKEND", "Agg")
outputs, size = [], 0
class Stream(io.TextIOBase):
    def __init__(self, name, fd): self.name_, self.fd = name, fd
    encoding = "utf-8"
    def writable(self): return True
    def fileno(self): return self.fd
    def isatty(self): return False
    def write(self, text):
        global size
        if not isinstance(text, str): raise TypeError("write() argument must be str, not " + type(text).__name__)
        length = len(text)
        text = text[:max(0, LIMIT - size)]
        size += length
        if text:
            if outputs and outputs[-1].get("name") == self.name_: outputs[-1]["text"] += text
            else: outputs.append({"output_type": "stream", "name": self.name_, "text": text})
        return length
    @property
    def buffer(self): return Buffer(self)
class Buffer:
    def __init__(self, stream): self.stream = stream
    def write(self, data): self.stream.write(bytes(data).decode("utf-8", "replace")); return len(data)
    def flush(self): pass
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
    for value in values: outputs.append({"output_type": "display_data", "data": rich(value), "metadata": {}})
def figures():
    plot = sys.modules.get("matplotlib.pyplot")
    if plot is None: return
    for number in plot.get_fignums():
        image = io.BytesIO()
        figure = plot.figure(number)
        figure.savefig(image, format="png", bbox_inches="tight")
        outputs.append({"output_type": "display_data", "metadata": {},
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
            outputs.append({"output_type": "execute_result", "data": rich(value), "metadata": {}, "execution_count": count})
sys.stdout, sys.stderr = Stream("stdout", 1), Stream("stderr", 2)
count = 0
while True:
    try: line = requests.readline()
    except KeyboardInterrupt: continue
    if not line: break
    request = json.loads(line)
    outputs.clear(); size = 0; count += 1; status, code = "ok", 0
    try:
        if request.get("cwd"): os.chdir(request["cwd"])
        run(request["code"], count)
        figures()
    except BaseException as error:
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
            if isinstance(error.code, str): sys.stderr.write(error.code + "\n")
        else: code = 1
        if code:
            trace = error.__traceback__
            while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<cell"): trace = trace.tb_next
            lines = traceback.format_exception(type(error), error, trace)
            status = "error"
            outputs.append({"output_type": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": lines})
    try: answer = json.dumps({"status": status, "exit_code": code, "execution_count": count, "outputs": outputs}, default=str)
    except Exception as error:
        answer = json.dumps({"status": "error", "exit_code": 1, "execution_count": count, "outputs": [
            {"output_type": "error", "ename": type(error).__name__, "evalue": "the output cannot be written as JSON: " + str(error), "traceback": []}]})
    try: answers.write(answer + "\n"); answers.flush()
    except KeyboardInterrupt: answers.write("\n"); answers.flush()
