// Usage: node bearer.mjs TARGET_ORIGIN TOKEN      (loopback only; prints one line when it serves)
// Hands every request on to TARGET_ORIGIN byte for byte, with a bearer token added where it carries
// none: the conformance suite has no option for headers.
import http from 'node:http';

const [target, token] = process.argv.slice(2);
const { hostname, port } = new URL(target);

const server = http.createServer((req, res) => {
  const headers = [...req.rawHeaders];
  if (!req.headers.authorization) headers.push('Authorization', `Bearer ${token}`);
  const up = http.request({ hostname, port, method: req.method, path: req.url, headers, setHost: false }, (answer) => {
    res.writeHead(answer.statusCode, answer.rawHeaders);
    res.flushHeaders();
    answer.pipe(res);
    answer.on('error', () => res.destroy());
  });
  up.on('error', (e) => { if (!res.headersSent) res.writeHead(502); res.end(`bearer: ${e.message}`); });
  req.pipe(up);
  res.on('close', () => up.destroy());
});

server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}` })));
