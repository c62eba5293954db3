// The login: the token typed, or the one behind the # of a link, which browsers send to no server.
"use strict";

const field = document.getElementById("token");
const status = document.getElementById("status");

async function logIn(token) {
  status.textContent = "";
  const reply = await fetch("/login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  }).catch(() => null);
  if (reply?.ok) return location.replace("/");
  status.textContent = reply ? (await reply.json()).error : "The server does not answer.";
  field.select();
}

document.getElementById("login").addEventListener("submit", (event) => {
  event.preventDefault();
  logIn(field.value.trim());
});

function fromLink() {
  const token = location.hash.slice(1);
  if (!token) return;
  history.replaceState(null, "", "/login");
  logIn(token);
}

addEventListener("hashchange", fromLink);
fromLink();
