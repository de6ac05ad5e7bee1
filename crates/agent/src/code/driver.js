const fs = require('fs'), vm = require('vm'), util = require('util'), path = require('path'), { createRequire } = require('module');
const LIMIT = 2 * 1024 * 1024;
let outputs = [], size = 0, count = 0;
const stream = (name) => (text) => {
  text = String(text).slice(0, Math.max(0, LIMIT - size)); size += text.length;
  if (!text) return true;
  const last = outputs[outputs.length - 1];
  if (last && last.name === name) last.text += text; else outputs.push({ output_type: 'stream', name, text });
  return true;
};
const out = stream('stdout'), err = stream('stderr');
const { Writable } = require('stream');
const writer = (write) => new Writable({ decodeStrings: false, write(chunk, _, done) { write(chunk); done(); } });
process.stdout.write = (chunk, a, b) => { out(chunk); const f = b || a; if (typeof f === 'function') f(); return true; };
process.stderr.write = (chunk, a, b) => { err(chunk); const f = b || a; if (typeof f === 'function') f(); return true; };
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
  outputs.push({ output_type: 'error', ename: (error && error.name) || 'Error', evalue: error && error.message !== undefined ? String(error.message) : String(error), traceback: stack.split('\n') });
};
async function run(request) {
  outputs = []; size = 0; count += 1;
  let status = 'ok', code = 0;
  try {
    if (request.cwd) process.chdir(request.cwd);
    place();
    const value = await evaluate(request.code);
    await new Promise((resolve) => setImmediate(resolve));
    if (value !== undefined) outputs.push({ output_type: 'execute_result', data: { 'text/plain': util.inspect(value).slice(0, LIMIT) }, metadata: {}, execution_count: count });
  } catch (error) { status = 'error'; code = 1; failure(error); }
  fs.writeSync(101, JSON.stringify({ status, exit_code: code, execution_count: count, outputs }) + '\n');
}
process.on('uncaughtException', failure);
process.on('unhandledRejection', failure);
let pending = '', turn = Promise.resolve();
fs.createReadStream(null, { fd: 100, encoding: 'utf8' }).on('data', (chunk) => {
  pending += chunk;
  let end;
  while ((end = pending.indexOf('\n')) >= 0) {
    const request = JSON.parse(pending.slice(0, end)); pending = pending.slice(end + 1);
    turn = turn.then(() => run(request));
  }
}).on('end', () => process.exit(0));
