const fs = require('fs'), vm = require('vm'), util = require('util'), path = require('path'), { createRequire } = require('module');
const LIMIT = 2 * 1024 * 1024;
const { StringDecoder } = require('string_decoder'), { Writable } = require('stream');
// What was printed is told at once while code runs, so that it is known however the code ends. Between two pieces of
// code nobody listens, and it waits for the next.
let waiting = [], size = 0, omitted = 0, count = 0, running = false;
// Half of a pair is no character, and not JSON.
const whole = (_, value) => typeof value === 'string' && /[\ud800-\udfff]/.test(value) ? Buffer.from(value).toString() : value;
const send = (message) => {
  let bytes = Buffer.from(JSON.stringify(message, whole) + '\n');
  while (bytes.length) bytes = bytes.subarray(fs.writeSync(101, bytes));
};
const put = (output) => {
  const last = waiting[waiting.length - 1];
  if (running) send({ outputs: [output] });
  else if (last && output.output_type === 'stream' && last.name === output.name) last.text += output.text;
  else waiting.push(output);
};
// A character may come in several writes, as bytes.
const stream = (name) => {
  const decoder = new StringDecoder('utf8');
  const take = (text) => {
    const kept = text.slice(0, Math.max(0, LIMIT - size)); size += kept.length; omitted += text.length - kept.length;
    if (kept) put({ output_type: 'stream', name, text: kept });
  };
  const write = (chunk, encoding) => {
    if (typeof chunk !== 'string' && !ArrayBuffer.isView(chunk)) chunk = String(chunk);
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk, Buffer.isEncoding(encoding) ? encoding : 'utf8') : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    take(decoder.write(bytes));
  };
  write.end = () => take(decoder.end());
  return write;
};
const out = stream('stdout'), err = stream('stderr');
const writer = (write) => new Writable({ decodeStrings: false, write(chunk, encoding, done) { write(chunk, encoding); done(); } });
const replace = (write) => (chunk, encoding, done) => {
  write(chunk, encoding);
  const called = typeof encoding === 'function' ? encoding : done;
  if (typeof called === 'function') process.nextTick(called);
  return true;
};
process.stdout.write = replace(out);
process.stderr.write = replace(err);
const context = vm.createContext(Object.assign(Object.create(null), { process, Buffer, URL, URLSearchParams, TextEncoder, TextDecoder,
  AbortController, fetch: globalThis.fetch, structuredClone: globalThis.structuredClone, queueMicrotask, performance,
  setTimeout, setInterval, setImmediate, clearTimeout, clearInterval, clearImmediate, exports: {}, module: { exports: {} } }));
context.global = context; context.globalThis = vm.runInContext('globalThis', context);
context.console = new console.Console(writer(out), writer(err));
const place = () => { context.require = createRequire(path.join(process.cwd(), 'cell.js')); context.__dirname = process.cwd(); context.__filename = path.join(process.cwd(), 'cell.js'); };
const evaluate = (code) => {
  const filename = `<cell ${count}>`;
  try { return vm.runInContext(code, context, { filename, importModuleDynamically: vm.constants ? vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER : undefined }); }
  catch (error) {
    if (!(error && error.name === 'SyntaxError' && /await/.test(code))) throw error;
    // Declarations of an asynchronous cell become globals, so that later cells see them.
    const body = code.replace(/^(\s*)(?:const|let|var)\s+([A-Za-z_$][\w$]*)\s*=/gm, '$1globalThis.$2 =');
    let script;
    try { script = new vm.Script(`(async () => (\n${body.trim().replace(/;$/, '')}\n))()`, { filename, lineOffset: -1 }); }
    catch { script = new vm.Script(`(async () => {\n${body}\n})()`, { filename, lineOffset: -1 }); }
    return script.runInContext(context);
  }
};
const failure = (error) => {
  const stack = error && error.stack ? String(error.stack) : util.inspect(error);
  put({ output_type: 'error', ename: (error && error.name) || 'Error', evalue: error && error.message !== undefined ? String(error.message) : String(error), traceback: stack.split('\n') });
};
async function run(request) {
  let status = 'ok', code = 0;
  count += 1; size = 0; omitted = 0; running = true;
  if (waiting.length) send({ outputs: waiting.splice(0) });
  try {
    if (request.cwd) process.chdir(request.cwd);
    place();
    const value = await evaluate(request.code);
    await new Promise((resolve) => setImmediate(resolve));
    if (value !== undefined) put({ output_type: 'execute_result', data: { 'text/plain': util.inspect(value).slice(0, LIMIT) }, metadata: {}, execution_count: count });
  } catch (error) { status = 'error'; code = 1; failure(error); }
  out.end(); err.end();
  running = false;
  const outputs = omitted ? [{ output_type: 'stream', name: 'stderr', text: `\n[... ${omitted} more characters omitted ...]\n` }] : [];
  send({ status, exit_code: code, execution_count: count, outputs });
}
process.on('uncaughtException', failure);
process.on('unhandledRejection', failure);
// Not as a file: the read of one would hold up the end of the process.
let pending = '', turn = Promise.resolve();
new (require('net').Socket)({ fd: 100, writable: false }).setEncoding('utf8').on('data', (chunk) => {
  pending += chunk;
  let end;
  while ((end = pending.indexOf('\n')) >= 0) {
    const request = JSON.parse(pending.slice(0, end)); pending = pending.slice(end + 1);
    turn = turn.then(() => run(request));
  }
}).on('end', () => process.exit(0));
