// Package web tests signed URLs with the clients, proxies and middleware that they
// meet: Chromium, curl, wget, Node.js, Python, nginx, and compressing and
// recovering handlers. A test whose program is missing skips, and says what to
// install.
package web
