// node send.js PROTOCOL PORT|PATH: send one metric of each kind with hot-shots, over udp, uds or tcp.
const { StatsD } = require('hot-shots');

const [protocol, where] = process.argv.slice(2);
const client = new StatsD({
  protocol,
  ...(protocol === 'uds' ? { path: where } : { host: '127.0.0.1', port: Number(where) }),
  prefix: 'node.',
  globalTags: { env: 'test' },
  maxBufferSize: 1000,
  errorHandler: (error) => { console.error(error); process.exitCode = 1; },
});
client.increment('requests');
client.increment('requests', 4, ['route:/a', 'bare']);
client.decrement('requests');
client.gauge('queue', 5);
client.gauge('queue', -7);
client.gaugeDelta('delta', -2.5);
client.timing('wait', 12.5);
client.histogram('size', 100);
client.distribution('spread', 0.25);
client.set('users', 'alice');
client.set('users', 'bob');
client.event('deploy', 'text');
client.check('health', client.CHECKS.OK);
client.increment('done');
client.close((error) => { if (error) { console.error(error); process.exitCode = 1; } });
