// Usage: node authorization.mjs SUITE ISSUER CALLBACK_PORT RESOURCE
// Runs the suite's authorization scenarios against an issuer and is the browser that the suite asks
// for: it opens the address that the suite prints and follows redirects, cookies kept.
import { spawn } from 'node:child_process';

const [suite, issuer, port, resource] = process.argv.slice(2);

async function visit(address) {
  const cookies = new Map();
  for (let hops = 0; hops < 20; hops += 1) {
    const cookie = [...cookies].map((pair) => pair.join('=')).join('; ');
    const answer = await fetch(address, { redirect: 'manual', headers: cookie ? { cookie } : {} });
    await answer.arrayBuffer();
    for (const set of answer.headers.getSetCookie()) {
      const [name, ...value] = set.split(';')[0].split('=');
      cookies.set(name, value.join('='));
    }
    const next = answer.headers.get('location');
    if (!next) return;
    address = new URL(next, address).href;
  }
}

const child = spawn(process.execPath, [suite, 'authorization', '--url', issuer, '--client-id', 'code', '--resource', resource, '--port', port, ...process.argv.slice(6)], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
let said = '';
let opened = false;
child.stdout.on('data', (chunk) => {
  process.stdout.write(chunk);
  said += chunk;
  const address = said.split('\n').slice(0, -1).find((line) => line.startsWith(`${issuer}/`) && line.includes('response_type=code'));
  if (address && !opened) {
    opened = true;
    visit(address.trim()).catch((error) => console.log(`the browser failed: ${error}`));
  }
});
child.on('exit', (code) => process.exit(code ?? 1));
