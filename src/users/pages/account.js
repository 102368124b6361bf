// One form for each page; the page's name is the form's id. What is behind the # of the link is filled in, and taken out of the
// address bar. Texts from elsewhere are only ever set as text.
"use strict";

const name = location.pathname.slice(1);
const form = document.getElementById(name);
const said = document.getElementById("said");
const given = decodeURIComponent(location.hash.slice(1));
history.replaceState(null, "", location.pathname);

async function call(method, path, body, bearer) {
  const headers = { "Content-Type": "application/json" };
  if (bearer) headers.Authorization = `Bearer ${bearer}`;
  const reply = await fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "omit" });
  const answer = reply.status === 204 ? {} : await reply.json();
  if (!reply.ok) throw new Error(answer.detail || `The daemon answered ${reply.status}.`);
  return answer;
}

let bearer = null;
let waiting = null;

async function logIn(fields) {
  if (waiting) {
    return call("POST", "/v1/auth/mfa/verify", { mfa_token: waiting, code: fields.get("code") });
  }
  return call("POST", "/v1/auth/token", { email: fields.get("email"), password: fields.get("password") });
}

async function device(fields, button) {
  const code = fields.get("user_code");
  if (button !== "look") {
    await call("POST", `/v1/auth/device/${button}`, { user_code: code }, bearer);
    form.hidden = true;
    return button === "approve" ? "It is in. You can close this page." : "It was turned away. You can close this page.";
  }
  if (!bearer) {
    const answer = await logIn(fields);
    if (answer.mfa_required) {
      waiting = answer.mfa_token;
      document.getElementById("second").hidden = false;
      return "Now the code of your authenticator app.";
    }
    bearer = answer.access_token;
  }
  const grant = await call("GET", `/v1/auth/device/code/${encodeURIComponent(code)}`, null, bearer);
  document.getElementById("program").textContent = `The program says that it is: ${grant.client_id} (${grant.status})`;
  for (const other of form.querySelectorAll("button")) other.hidden = other.value === "look";
  return "";
}

const pages = {
  device: ["Let a device in", "user_code", device],
  "verify-email": ["Confirm your email address", "token", async (fields) => {
    await call("POST", "/v1/auth/verify-email", { token: fields.get("token") });
    form.hidden = true;
    return "Your account is ready. Log in with your email and password.";
  }],
  "accept-invite": ["Join an organisation", "token", async (fields) => {
    const answer = await call("POST", "/v1/auth/accept-invite", {
      token: fields.get("token"), password: fields.get("password"), display_name: fields.get("display_name"),
    });
    form.hidden = true;
    return answer.message;
  }],
  "reset-password": ["Choose a new password", "token", async (fields) => {
    const answer = await call("POST", "/v1/auth/reset-password", {
      token: fields.get("token"), new_password: fields.get("new_password"),
    });
    form.hidden = true;
    return answer.message;
  }],
};

const [title, field, act] = pages[name];
document.getElementById("title").textContent = title;
form.elements[field].value = given;
form.hidden = false;
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  said.textContent = "…";
  try {
    said.textContent = await act(new FormData(form), event.submitter && event.submitter.value);
  } catch (error) {
    said.textContent = error.message;
  }
});
