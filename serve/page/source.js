// Where the video comes from: camera, screen or a file. All of them play in one <video>.

export class Source {
  constructor(video) {
    this.video = video;
    this.canvas = document.createElement("canvas");
    this.stream = null;
  }

  async useCamera() {
    await this.useStream(await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, facingMode: "user" },
    }));
  }

  async useScreen() {
    await this.useStream(await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 30 } } }));
  }

  async useStream(stream) {
    this.stop();
    this.stream = stream;
    this.video.srcObject = stream;
    await this.video.play();
  }

  async useFile(file) {
    this.stop();
    this.video.src = this.url = URL.createObjectURL(file);
    this.video.loop = true;
    await this.video.play();
  }

  // For WebRTC: the camera's own track, or one of the canvas that shows the file.
  track(width, height) {
    if (this.stream) return this.stream.getVideoTracks()[0];
    this.drawing = setInterval(() => this.draw(width, height), 1000 / 30);
    this.draw(width, height);
    return this.canvas.captureStream(30).getVideoTracks()[0];
  }

  // For WebSocket: the picture of now, of the stream's size.
  async picture(width, height) {
    this.draw(width, height);
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/jpeg", 0.85));
  }

  draw(width, height) {
    const { videoWidth, videoHeight } = this.video;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    if (!videoWidth) return;
    const scale = Math.min(videoWidth / width, videoHeight / height);
    const [cutWidth, cutHeight] = [width * scale, height * scale];
    this.canvas.getContext("2d").drawImage(
      this.video, (videoWidth - cutWidth) / 2, (videoHeight - cutHeight) / 2, cutWidth, cutHeight, 0, 0, width, height,
    );
  }

  get ended() {
    return this.stream ? !this.stream.active : !this.url;
  }

  stop() {
    clearInterval(this.drawing);
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.url) URL.revokeObjectURL(this.url);
    this.stream = this.url = null;
    this.video.srcObject = null;
    this.video.removeAttribute("src");
    this.video.load();
  }
}
