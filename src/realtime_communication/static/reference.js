// Shows /openapi.json and /asyncapi.json, both of this server. All text is set as text: nothing in them becomes markup.

const METHODS = ["get", "post", "put", "patch", "delete"];
const MOST_LEVELS = 6; // of a schema that refers to itself

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function resolved(document, schema) {
  if (!schema?.$ref) return schema;
  return schema.$ref.slice(2).split("/").reduce((at, part) => at?.[part.replaceAll("~1", "/").replaceAll("~0", "~")], document);
}

// A schema in the short form that people read: {name?: type, …}.
function shape(document, schema, indent = "", level = 0) {
  schema = resolved(document, schema);
  if (!schema || level > MOST_LEVELS) return "…";
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map((choice) => shape(document, choice, indent, level + 1)).join(" | ");
  if (schema.type === "array") return `[${shape(document, schema.items ?? {}, indent, level + 1)}, …]`;
  if (schema.properties) {
    const inner = `${indent}  `;
    const rows = Object.entries(schema.properties).map(([name, value]) => {
      const mark = schema.required?.includes(name) ? "" : "?";
      const about = resolved(document, value).description;
      return `${inner}${name}${mark}: ${shape(document, value, inner, level + 1)}${about ? `  // ${about}` : ""}`;
    });
    return rows.length ? `{\n${rows.join("\n")}\n${indent}}` : "{}";
  }
  if (schema.type === "object") return "{…}";
  return [schema.type ?? "any"].flat().join(" | ");
}

function table(rows) {
  const made = element("table");
  for (const cells of rows) {
    const row = made.appendChild(element("tr"));
    for (const cell of cells) row.appendChild(element("td", cell));
  }
  return made;
}

function part(parent, title, content) {
  parent.append(element("h4", title), content);
}

function operation(document, method, path, about) {
  const made = element("details");
  made.id = `${method}-${path}`;
  const head = made.appendChild(element("summary"));
  head.append(element("code", method.toUpperCase(), "method"), element("code", path, "path"), about.summary);
  if (about.security?.length) head.append(element("span", "needs credentials", "needs"));
  if (about.description) made.append(element("p", about.description));
  if (about.parameters?.length) {
    const rows = about.parameters.map((one) => [
      one.name + (one.required ? "" : "?"), one.in, shape(document, one.schema), one.description ?? "",
    ]);
    part(made, "Parameters", table(rows));
  }
  const body = about.requestBody?.content?.["application/json"]?.schema;
  if (body) part(made, "Body", element("pre", shape(document, body)));
  for (const [status, given] of Object.entries(about.responses)) {
    const answer = resolved(document, given);
    if (given.$ref) continue;
    const [[media, { schema }] = ["", {}]] = Object.entries(answer.content ?? {});
    part(made, `${status} ${media}`, element("pre", shape(document, schema)));
  }
  const refusals = Object.entries(about.responses).filter(([, given]) => given.$ref);
  part(made, "Failures", table(refusals.map(([status, given]) => [status, resolved(document, given).description])));
  return made;
}

function showHttp(document) {
  const parent = globalThis.document.getElementById("http");
  for (const { name } of document.tags) {
    parent.append(element("h3", name));
    for (const [path, methods] of Object.entries(document.paths)) {
      for (const method of METHODS) {
        if (methods[method]?.tags.includes(name)) parent.append(operation(document, method, path, methods[method]));
      }
    }
  }
}

function message(document, name) {
  const about = document.components.messages[name];
  const made = element("details");
  const head = made.appendChild(element("summary"));
  head.append(element("code", about.name, "path"), about.summary);
  made.append(element("pre", shape(document, about.payload)));
  for (const example of about.examples ?? []) made.append(element("pre", JSON.stringify(example.payload)));
  return made;
}

function showWebSocket(document) {
  const parent = globalThis.document.getElementById("websocket");
  parent.append(element("p", document.info.description));
  const last = (reference) => reference.$ref.split("/").pop();
  const operations = Object.values(document.operations);
  parent.append(element("h3", "from the client"));
  for (const one of operations.filter(({ action }) => action === "receive")) {
    const made = message(document, last(one.messages[0]));
    for (const reply of one.reply.messages) {
      if (last(reply) !== "Error") made.append(element("h4", "Reply"), message(document, last(reply)));
    }
    parent.append(made);
  }
  parent.append(element("h3", "from the server"));
  for (const one of operations.filter(({ action }) => action === "send")) {
    parent.append(message(document, last(one.messages[0])));
  }
}

async function show(address, draw) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address} was answered ${answer.status}`);
  draw(await answer.json());
}

try {
  await show("openapi.json", (document) => {
    globalThis.document.getElementById("title").textContent = `${document.info.title} ${document.info.version}`;
    globalThis.document.getElementById("about").textContent = document.info.description;
    showHttp(document);
  });
  await show("asyncapi.json", showWebSocket);
  document.body.dataset.ready = "yes";
} catch (error) {
  document.getElementById("about").replaceChildren(element("span", String(error), "failed"));
}
