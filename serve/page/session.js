// A session: its WebSocket, and what the server says on it. docs/serve.md describes the messages.

export function readToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem("token", found);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("token");
}

export async function ask(path, body) {
  const token = readToken();
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(body && { "content-type": "application/json" }) };
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const said = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(`${said.problem}. ${said.remedy}.`), { status: answer.status });
  return said;
}

export class Session extends EventTarget {
  constructor() {
    super();
    const token = readToken();
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/api/session`, ["live2diff", ...(token ? [`token.${token}`] : [])]);
    this.socket.binaryType = "blob";
    this.socket.onmessage = ({ data }) => this.hear(data);
    this.socket.onclose = () => this.tell("over", this.farewell);
  }

  hear(data) {
    if (data instanceof Blob) return this.tell("picture", data);
    const message = JSON.parse(data);
    if (message.type === "welcome") this.name = message.session;
    if (message.type === "error") this.farewell = message;
    return this.tell(message.type, message);
  }

  tell(type, detail) {
    this.dispatchEvent(Object.assign(new Event(type), { detail }));
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(message instanceof Blob ? message : JSON.stringify(message));
  }

  close() {
    this.socket.close();
  }
}
