// Renders /openapi.json. Text is only ever set as text, never as markup.
"use strict";

function node(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  const choices = schema.oneOf || schema.anyOf || schema.allOf;
  if (choices) return choices.map(typeOf).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return [].concat(schema.type || "any").join(" or ");
}

function table(heads, rows) {
  const made = node("table");
  const head = made.createTHead().insertRow();
  heads.forEach((text) => head.append(node("th", text)));
  const body = made.createTBody();
  rows.forEach((cells) => {
    const row = body.insertRow();
    cells.forEach((text, i) => row.insertCell().append(node(i === 0 ? "code" : "span", text || "")));
  });
  return made;
}

function contentType(content) {
  return Object.values(content || {}).map((media) => typeOf(media.schema)).join(" or ");
}

function operation(method, path, spec) {
  const made = node("details");
  const summary = node("summary");
  const name = node("code");
  name.append(node("span", method.toUpperCase(), "method"), path);
  summary.append(name, node("span", `  ${spec.summary || ""}`, "muted"));
  made.append(summary);
  if (spec.description) made.append(node("p", spec.description));
  const parameters = (spec.parameters || []).map((p) => [p.name, p.in, typeOf(p.schema), p.description]);
  if (parameters.length) made.append(table(["parameter", "in", "type", ""], parameters));
  if (spec.requestBody) made.append(node("p", `Body: ${contentType(spec.requestBody.content)}`));
  const answers = Object.entries(spec.responses || {}).map(([status, r]) =>
    [status, contentType(r.content), r.description]);
  made.append(table(["status", "body", ""], answers));
  return made;
}

function schema(name, spec) {
  const made = node("details");
  const summary = node("summary");
  summary.append(node("code", name));
  made.append(summary);
  if (spec.description) made.append(node("p", spec.description));
  const required = new Set(spec.required || []);
  const fields = Object.entries(spec.properties || {}).map(([field, s]) =>
    [field, typeOf(s), required.has(field) ? "always" : "may be left out", s.description]);
  if (fields.length) made.append(table(["field", "type", "", ""], fields));
  return made;
}

fetch("/openapi.json").then((answer) => answer.json()).then((api) => {
  const page = document.getElementById("page");
  page.replaceChildren(node("h1", `${api.info.title} ${api.info.version}`), node("p", api.info.description));
  const source = node("a", "/openapi.json");
  source.href = "/openapi.json";
  page.append(source, node("h2", "Calls"));
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, spec] of Object.entries(methods)) page.append(operation(method, path, spec));
  }
  page.append(node("h2", "Types"));
  for (const [name, spec] of Object.entries(api.components.schemas)) page.append(schema(name, spec));
}).catch((error) => {
  document.getElementById("page").replaceChildren(node("p", `Cannot load the description: ${error}`));
});
