// The two ways of the pictures: WebRTC, and JPEG files over the session's WebSocket.

import { ask } from "/session.js";

const GATHER_MS = 1500;
const CONNECT_MS = 7000;
const MOST_BUFFERED = 256 * 1024;
const FRAME_MS = 1000 / 30;

export class WebRtc {
  constructor(session, source, stream, video) {
    Object.assign(this, { session, source, stream, video });
    this.peer = new RTCPeerConnection({ iceServers: stream.stun.map((urls) => ({ urls })) });
  }

  // Resolves when video flows; rejects when it will not.
  async start() {
    this.peer.addTrack(this.source.track(this.stream.width, this.stream.height), new MediaStream());
    this.peer.ontrack = ({ track }) => {
      this.video.srcObject = new MediaStream([track]);
      this.video.play().catch(() => {}); // it plays as soon as there is a picture
    };
    await this.peer.setLocalDescription();
    await this.gathered();
    const answer = await ask(`/api/sessions/${this.session.name}/offer`, { sdp: this.peer.localDescription.sdp });
    await this.peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    await this.connected();
  }

  gathered() {
    return new Promise((resolve) => {
      setTimeout(resolve, GATHER_MS);
      const check = () => this.peer.iceGatheringState === "complete" && resolve();
      this.peer.onicegatheringstatechange = check;
      check();
    });
  }

  connected() {
    return new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error("no connection was made in time")), CONNECT_MS);
      this.peer.onconnectionstatechange = () => {
        const state = this.peer.connectionState;
        if (state === "connected") resolve();
        if (state === "failed") reject(new Error("the network lets no WebRTC through"));
        if (state === "failed") this.onlost?.();
      };
    });
  }

  stop() {
    this.onlost = null;
    this.peer.close();
    this.video.srcObject = null;
  }
}

export class WebSocketJpeg {
  constructor(session, source, stream, canvas) {
    Object.assign(this, { session, source, stream, canvas, number: 0, running: true });
    Object.assign(canvas, { width: stream.width, height: stream.height });
    this.show = ({ detail }) => this.take(detail);
  }

  async start() {
    this.session.addEventListener("picture", this.show);
    this.send();
  }

  async send() {
    while (this.running) {
      const began = performance.now();
      if (this.session.socket.bufferedAmount < MOST_BUFFERED) {
        const picture = await this.source.picture(this.stream.width, this.stream.height);
        if (picture && this.running) this.session.send(new Blob([numbered(this.number++), picture]));
      }
      await new Promise((resolve) => setTimeout(resolve, Math.max(1, FRAME_MS - (performance.now() - began))));
    }
  }

  async take(data) {
    const frame = new DataView(await data.slice(0, 4).arrayBuffer()).getUint32(0);
    const picture = await createImageBitmap(data.slice(4, data.size, "image/jpeg"));
    if (this.running) this.canvas.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
    this.session.send({ type: "shown", frame });
  }

  stop() {
    this.running = false;
    this.session.removeEventListener("picture", this.show);
  }
}

function numbered(number) {
  const head = new DataView(new ArrayBuffer(4));
  head.setUint32(0, number);
  return head.buffer;
}
