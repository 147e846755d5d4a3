"""Serves a page on which visitors stream their own video: one engine, many sessions, WebRTC or WebSocket and JPEG."""
