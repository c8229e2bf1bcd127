// What all pages share: how they ask the process that serves them, and how they say what is wrong.

const token = location.hash.slice(1);
export const element = (id) => document.getElementById(id);

export function gone(command) {
  return {
    message: `${command} on this computer does not answer`,
    advice: "Start it again, and open the address that it prints.",
  };
}

export async function api(path, options = {}) {
  return fetch(path, { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } });
}

export async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    rest += value;
    const complete = rest.split("\n");
    rest = complete.pop();
    yield* complete;
  }
  if (rest) yield rest;
}

export function say(text) {
  element("status").textContent = text;
}

export function fail(problem) {
  say("");
  const paragraphs = [problem.message, problem.advice].filter(Boolean).map((text) => {
    const paragraph = document.createElement("p");
    paragraph.textContent = text.charAt(0).toUpperCase() + text.slice(1);
    return paragraph;
  });
  element("failure").replaceChildren(...paragraphs);
  element("failure").hidden = false;
}

// A whole answer.  Throws what is wrong, as `fail` shows it.
export async function answer(path, options) {
  const response = await api(path, options);
  const found = await response.json();
  if (!response.ok) throw found;
  return found;
}

// Whom the page is about; `more` says what else, of what the server has said.
export async function introduce(missing, more = () => "") {
  try {
    const about = await answer("/api/about");
    const names = about.parties.map((party) => party.name).join(", ");
    const said = [about.client, more(about), `${about.parties.length} parties: ${names}`].filter(Boolean);
    element("about").textContent = said.join(" · ");
  } catch (error) {
    console.debug(error);
    element("about").textContent = "";
    fail(error.step ? error : missing);
  }
}
