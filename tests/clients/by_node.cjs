// openai-node, found from the working directory, which is its environment. Cases and answers are those of drive.py.
const fs = require("node:fs");
const { createRequire } = require("node:module");
const { OpenAI, AzureOpenAI } = createRequire(`${process.cwd()}/`)("openai");

function client({ call, url, key, retries, timeout }) {
  const how = { apiKey: key, maxRetries: retries, timeout: 1000 * timeout };
  return call === "azure"
    ? new AzureOpenAI({ ...how, endpoint: url, apiVersion: "2024-02-01" })
    : new OpenAI({ ...how, baseURL: `${url}/v1` });
}

function sent(what) {
  return Array.isArray(what) ? what.map(sent) : fs.createReadStream(what);
}

async function made(it) {
  const files = Object.fromEntries(Object.entries(it.files).map(([name, what]) => [name, sent(what)]));
  const [fields, options] = [{ ...it.fields, ...it.extra, ...files }, { headers: it.headers }];
  const openai = client(it);
  switch (it.call) {
    case "generate":
    case "azure":
      return openai.images.generate(fields, options);
    case "edit":
      return openai.images.edit(fields, options);
    case "variation":
      return openai.images.createVariation(fields, options);
    case "models":
      return { data: (await openai.models.list()).data };
    case "model":
      return openai.models.retrieve(it.fields.model);
    case "get":
      return openai.get(it.path);
    case "post":
      return openai.post(it.path, { body: it.fields });
  }
}

async function became(it) {
  try {
    const given = await made(it);
    if (!it.fields.stream) return { answer: given };
    const events = [];
    for await (const event of given) events.push(event);
    return { answer: events };
  } catch (error) {
    const { status = null, type, code, param, requestID: id, message } = error;
    return { error: { kind: error.constructor.name, message, status, type, code, param, id } };
  }
}

(async () => {
  const all = [];
  for (const it of JSON.parse(fs.readFileSync(0))) all.push(await became(it));
  fs.writeFileSync(1, JSON.stringify(all));
})();
