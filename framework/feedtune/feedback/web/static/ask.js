// The page that asks: shows a question, sends the answer, shows the next one. Text of models enters as text alone.
"use strict";

const kind = document.body.dataset.kind;
const the = (id) => document.getElementById(id);
const buttons = [...document.querySelectorAll(".actions button")];
const skipped = []; // ids of responses that this visit passes over
const MOST_SKIPPED = 200; // as many as the server takes: the earliest come again
const given = []; // ids of this visit's answers, for undo
const PENDING = "feedtune-pending"; // an answer that is not known to have arrived
let question = null;
let busy = false;

// Characters that change the order of text or cannot be seen, as feedtune.text.visible has them.
const UNSEEN = new RegExp(
  "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb" +
    "\\ud800-\\udfff\\u{e0000}-\\u{e007f}]", "gu");

/** Text as nodes: what cannot be seen is spelled out. */
function spelled(text) {
  const nodes = document.createDocumentFragment();
  let from = 0;
  for (const found of text.matchAll(UNSEEN)) {
    nodes.append(text.slice(from, found.index));
    const mark = document.createElement("span");
    mark.className = "unseen";
    mark.textContent = "U+" + found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.append(mark);
    from = found.index + found[0].length;
  }
  nodes.append(text.slice(from));
  return nodes;
}

function paragraph(text, role) {
  const block = document.createElement("div");
  block.className = "said";
  block.dir = "auto";
  if (role) {
    const label = document.createElement("p");
    label.className = "label";
    label.textContent = role;
    block.append(label);
  }
  block.append(spelled(text));
  return block;
}

function show(next) {
  question = next;
  const over = next.item === null;
  the("question").hidden = over;
  the("done").hidden = !over;
  (over ? the("done") : document.querySelector(".actions")).append(the("undo"));
  if (over) return;
  the("count").textContent = `${next.answered} of ${next.questions} answered`;
  const said = next.item.messages.map((one) => paragraph(String(one.content), String(one.role)));
  the("prompt").replaceChildren(...(said.length ? said : [paragraph(next.item.prompt)]));
  the("responses").replaceChildren(...next.responses.map(card));
  if (the("edited")) the("edited").value = next.responses[0].text;
  the("main").focus({ preventScroll: true });
  scrollTo(0, 0);
}

function card(response, place) {
  const made = the("response").content.cloneNode(true);
  made.querySelector("h2").textContent = question.responses.length > 1 ? "AB"[place] : "Response";
  made.querySelector(".said").append(spelled(response.text));
  const form = made.querySelector("form");
  made.querySelector("button.quiet").addEventListener("click", () => {
    form.hidden = !form.hidden;
    if (!form.hidden) form.querySelector("textarea").focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    alone(() => comment(question.item.id, response.id, form));
  });
  return made;
}

/** Send a comment. Its id stays with the form until the server has it, so that sent again it counts once. */
async function comment(item, response, form) {
  const field = form.querySelector("textarea");
  if (!form.dataset.answer) {
    const { status, said } = await ask("GET", `/api/ticket?${new URLSearchParams({ item, response })}`);
    if (status !== 200) return tell(said.error);
    form.dataset.answer = said.answer;
  }
  const { status, said } = await ask("POST", "/api/answers", {
    answer: form.dataset.answer, item, kind: "comment", responses: [response], value: field.value,
  });
  if (status !== 200) return tell(said.error);
  delete form.dataset.answer;
  field.value = "";
  form.hidden = true;
  tell("Comment saved.");
}

function tell(text) {
  the("status").textContent = text;
}

/** Show the next question, and say `done`; where none comes, there is nothing left to answer by mistake. */
async function load(done = "") {
  const where = new URLSearchParams({ kind });
  for (const id of skipped.slice(-MOST_SKIPPED)) where.append("skip", id);
  const { status, said } = await ask("GET", `/api/next?${where}`);
  if (status === 200) {
    show(said);
    return done && tell(done);
  }
  question = null;
  the("question").hidden = true;
  tell(`${done} ${said.error} Load the page again for the next question.`);
}

const later = (ms) => new Promise((go) => setTimeout(go, ms));

/** Send an answer until the server has it. Its id makes every further sending the same click. */
async function deliver(answer) {
  sessionStorage.setItem(PENDING, JSON.stringify(answer));
  for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
    const { status, said } = await ask("POST", "/api/answers", answer);
    if (status === 401) return false; // kept for after the login
    if (status !== 0 && status !== 429 && status < 500) {
      sessionStorage.removeItem(PENDING);
      if (status === 200) return true;
      tell(said.error);
      return false;
    }
    tell(`Not saved yet: ${said.error} Trying again.`);
    await later(wait);
  }
}

function tags() {
  return the("tags").value.split(",").map((one) => one.trim()).filter(Boolean);
}

/** One thing at a time: a second press while the first is on its way does nothing. */
async function alone(work) {
  if (busy) return;
  busy = true;
  for (const one of buttons) one.disabled = true;
  try {
    await work();
  } finally {
    busy = false;
    for (const one of buttons) one.disabled = false;
    the("undo").disabled = given.length === 0;
  }
}

async function answer(value) {
  if (question?.item == null) return;
  if (value === "pass") {
    skipped.push(...question.responses.map((one) => one.id));
    return load("Skipped.");
  }
  const said = {
    answer: question.answer,
    item: question.item.id,
    kind,
    responses: question.responses.map((one) => one.id),
    value: kind === "rating" ? Number(value) : kind === "edit" ? the("edited").value : value,
    tags: tags(),
  };
  if (!(await deliver(said))) return;
  given.push(said.answer);
  the("tags").value = "";
  await load("Saved.");
}

async function undo() {
  const last = given.pop();
  if (last === undefined) return;
  const { status, said } = await ask("DELETE", `/api/answers/${encodeURIComponent(last)}`);
  await load(status === 200 ? "Taken back." : said.error);
}

for (const one of buttons) {
  one.addEventListener("click", () => alone(one.id === "undo" ? undo : () => answer(one.dataset.value)));
}

addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, summary, a, button");
  const name = (event.ctrlKey || event.metaKey ? "ctrl+" : "") + event.key.toLowerCase();
  if (event.repeat || event.altKey || (typing && !name.startsWith("ctrl+"))) return;
  const pressed = buttons.find((one) => one.dataset.keys.split(" ").includes(name));
  if (!pressed || pressed.disabled) return;
  event.preventDefault();
  pressed.click();
});

alone(async () => {
  const pending = sessionStorage.getItem(PENDING);
  if (pending !== null) await deliver(JSON.parse(pending));
  await load();
});
