// Requests to the program behind the page. While it does not answer it is asked again: a step carries a number, so that
// one which was taken, though its answer was lost, is not taken twice.

const AGAIN = 1000; // ms
const listeners = [];

export class Fault extends Error {
  constructor(line, status) {
    super(line);
    this.status = status;
  }
}

export function onLost(listener) {
  listeners.push(listener);
}

function tell(lost) {
  for (const listener of listeners) listener(lost);
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function once(path, options) {
  const answer = await fetch(path, { cache: "no-store", ...options });
  const kind = answer.headers.get("Content-Type") || "";
  const body = kind.startsWith("application/json") ? await answer.json() : {};
  if (!answer.ok) throw new Fault(body.error || `the server answers ${answer.status}`, answer.status);
  return body;
}

async function patiently(path, options) {
  for (let lost = false; ; await wait(AGAIN)) {
    try {
      const body = await once(path, options);
      if (lost) tell(false);
      return body;
    } catch (error) {
      if (error instanceof Fault) {
        if (lost) tell(false);
        throw error;
      }
      if (!lost) tell(true);
      lost = true;
    }
  }
}

export const ask = (name, body = {}) => patiently(name, { method: "POST", body: JSON.stringify(body) });

export const status = () => patiently("status");

export function leave(session) {
  navigator.sendBeacon("leave", JSON.stringify({ session }));
}
