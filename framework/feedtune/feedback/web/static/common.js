// What pages share for who has logged in: requests, and the account's menu.
"use strict";

const csrf = document.querySelector("meta[name=csrf]").content;

/** Ask the server; gives {status, said}. Status 0: it does not answer. */
async function ask(method, path, body) {
  const headers = { "X-CSRF-Token": csrf };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    const reply = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    if (reply.status === 401) location.assign("/login");
    return { status: reply.status, said: await reply.json() };
  } catch {
    return { status: 0, said: { error: "The server does not answer." } };
  }
}

document.getElementById("logout").addEventListener("click", async () => {
  await ask("POST", "/logout", {});
  location.assign("/login");
});

document.getElementById("forget").addEventListener("click", async () => {
  if (!confirm("Delete all your answers and your login? This cannot be undone.")) return;
  await ask("DELETE", "/api/mine");
  location.assign("/login");
});
